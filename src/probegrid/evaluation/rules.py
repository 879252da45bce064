"""Rules of correctness by name: the official ones, others of the field, and those that come through the door.

Knows which rules there are, what each can be told (a threshold, a language) and which part of a text each judges; the
door is ``probegrid.rules``.
"""

from __future__ import annotations

import copy
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import ClassVar

from probegrid.errors import ConfigError, closest
from probegrid.evaluation import correctness, languages
from probegrid.evaluation.correctness import Judgement
from probegrid.evaluation.extraction import Extracted, by_letter, by_number
from probegrid.evaluation.numbers import only_number, result_in
from probegrid.plugins import VARIABLE, from_outside


class CorrectnessRule(ABC):
    """Holds an answer against its references; a dataset names it by ``dataset.rule``."""

    name: ClassVar[str]
    """By which a dataset, and a key, name it."""
    threshold: float | None = None
    """What an answer must reach to be correct, by ``dataset.rule_threshold``; None: the rule has none."""
    extracts: ClassVar[bool] = False
    """Whether it judges a part of a text, so that it is counted how often there was one."""
    knows_languages: ClassVar[bool] = False
    """Whether ``dataset.language`` tells it how words are normalized."""
    language: str | None = None
    """One of `languages.LANGUAGES`; None: English, as the rule's official scorer has it."""

    @property
    def settings(self) -> tuple[str, ...]:
        """What it was told, in words."""
        threshold = () if self.threshold is None else (f"threshold {self.threshold:g}",)
        return (*threshold, *(() if self.language is None else (f"words as in '{self.language}'",)))

    def takes(self, threshold: float) -> bool:
        """Whether a threshold can tell a right answer from a wrong one."""
        return True

    @abstractmethod
    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """Hold one answer against all its references; without any, the question has no answer."""

    def extract(self, text: str, options: Sequence[str] = (), *, is_whole: bool = True) -> Extracted | None:
        """The part of a text that is judged; None where there is none, which is wrong.

        Args:
            text: what the model said, a thought before it left out.
            options: what could be chosen.
            is_whole: whether the text ended by itself; else it was cut off.
        """
        return Extracted(text, "text")

    def normalize(self, text: str) -> str:
        """What two answers must share to be the same answer; by itself, all but case and white space."""
        return " ".join(text.lower().split())


class Squad(CorrectnessRule):
    """SQuAD's normalization; correct when F1 is at least the threshold, 0.5."""

    name = "squad"
    threshold: float | None = correctness.SQUAD_MIN_F1
    knows_languages = True

    def takes(self, threshold: float) -> bool:
        """Above 0, which every answer reaches, and up to 1."""
        return 0 < threshold <= 1

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """As `correctness.judge`."""
        assert self.threshold is not None
        em, f1 = self._overlap(answer, references)
        return Judgement(em=em, f1=f1, correct=f1 >= self.threshold)

    def _overlap(self, answer: str, references: Sequence[str]) -> tuple[float, float]:
        """EM and token F1; by the official scorer an empty answer is right where a reference is ``+`` alone."""
        if (same := _as_written(answer, references, self.normalize)) is not None:
            return float(same), float(same)
        return correctness.overlap(answer, references, self.normalize, empty_is_right=True)

    def normalize(self, text: str) -> str:
        """As the official scorer does; in another language, as MLQA's."""
        if self.language is not None:
            return languages.normalize(text, self.language)
        return correctness.normalize(text, correctness.Rule.SQUAD)


class TriviaQA(CorrectnessRule):
    """TriviaQA's normalization; correct on exact match with any alias."""

    name = "trivia_qa"

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """As `correctness.judge`."""
        if (same := _as_written(answer, references, self.normalize)) is not None:
            return Judgement(em=float(same), f1=float(same), correct=same)
        return correctness.judge(answer, references, correctness.Rule.TRIVIA_QA)

    def normalize(self, text: str) -> str:
        """As the official scorer does."""
        return correctness.normalize(text, correctness.Rule.TRIVIA_QA)


class Exact(Squad):
    """SQuAD's normalization; correct on exact match with any reference."""

    name = "exact"
    threshold: float | None = None

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """EM decides."""
        em, f1 = self._overlap(answer, references)
        return Judgement(em=em, f1=f1, correct=em == 1.0)


class HotpotQA(Squad):
    """SQuAD's F1 at its threshold, but a yes or a no is right or wrong as a whole.

    Source: hotpot_evaluate_v1.py (Yang et al. 2018, arXiv 1809.09600), in which an answer of yes, no or noanswer that
    is not the other's has an F1 of 0.
    """

    name = "hotpot_qa"
    _WHOLE = frozenset({"yes", "no", "noanswer"})

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """As SQuAD, over the references that may share words with the answer."""
        given = self.normalize(answer)
        alike = [
            reference
            for reference in references
            if (words := self.normalize(reference)) == given or not {words, given} & self._WHOLE
        ]
        if references and not alike:
            return Judgement(em=0.0, f1=0.0, correct=False)
        return super().judge(answer, alike)


class Contains(Squad):
    """Correct when a reference stands in the answer, word for word after SQuAD's normalization.

    PopQA's rule (Mallen et al. 2023, arXiv 2212.10511) looks for the bare characters, in which "know" holds "no"; here
    words count.
    """

    name = "contains"
    threshold: float | None = None

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """A reference of at least one word inside the answer decides."""
        em, f1 = self._overlap(answer, references)
        said = f" {self.normalize(answer)} "
        wanted = [reference for reference in map(self.normalize, references) if reference]
        held = any(f" {reference} " in said for reference in wanted) if wanted else em == 1.0
        return Judgement(em=em, f1=f1, correct=held)


class Judge(Squad):
    """A second model says whether an answer means what is expected (`cell.judge`); correct at the threshold, 0.5.

    By itself it knows only what needs no asking: an answer that is a reference after SQuAD's normalization.
    """

    name = "judge"

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """EM decides."""
        em, f1 = self._overlap(answer, references)
        return Judgement(em=em, f1=f1, correct=em == 1.0)


class Numeric(CorrectnessRule):
    """The number that an answer gives, against the number that a reference is.

    Whole numbers match exactly, others within the threshold (relative, 1e-4); 1,000 is 1000, 1/2 is 0.5, -5 is not 5.
    Units count where both have one that is known. A reference that is no number is compared as a text.
    """

    name = "numeric"
    threshold = 1e-4
    extracts = True

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """EM, F1 and verdict are one."""
        right = any(self._matches(answer, reference) for reference in references)
        return Judgement(em=float(right), f1=float(right), correct=right)

    def extract(self, text: str, options: Sequence[str] = (), *, is_whole: bool = True) -> Extracted | None:
        """The number that the text gives as its result."""
        return by_number(text, is_whole=is_whole)

    def normalize(self, text: str) -> str:
        """The number as it is always written, where there is one."""
        found = result_in(text)
        return super().normalize(text) if found is None else found[0].canonical

    def _matches(self, answer: str, reference: str) -> bool:
        wanted = only_number(reference)
        if wanted is None:
            return bool(reference.strip()) and super().normalize(answer) == super().normalize(reference)
        said = result_in(answer)
        assert self.threshold is not None
        return said is not None and said[0].equals(wanted, self.threshold)


class Choice(CorrectnessRule):
    """The letter of an option, or the option itself, against the right one's."""

    name = "choice"
    extracts = True

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """EM, F1 and verdict are one; a letter is compared with letters, a text with texts."""
        letters = {reference.strip() for reference in references if len(reference.strip()) == 1}
        texts = {self._plain(reference) for reference in references} - {""}
        found = by_letter(answer, ()) if letters else None
        right = (found is not None and found.text in letters) or self._plain(answer) in texts
        return Judgement(em=float(right), f1=float(right), correct=right)

    def extract(self, text: str, options: Sequence[str] = (), *, is_whole: bool = True) -> Extracted | None:
        """The letter that the text chooses; recited options choose none."""
        return by_letter(text, options, is_whole=is_whole)

    def normalize(self, text: str) -> str:
        """The letter where one is chosen."""
        found = by_letter(text, ())
        return self._plain(text) if found is None else found.text.lower()

    @staticmethod
    def _plain(text: str) -> str:
        return correctness.normalize(text, correctness.Rule.SQUAD) or " ".join(text.lower().split())


class RougeL(CorrectnessRule):
    """The F measure of the longest common subsequence of words (Lin 2004); correct when above the threshold, 0.3.

    Words as rouge_score has them, letters and digits in lower case, of any alphabet. The threshold is that of Kuhn et
    al. 2023 (arXiv 2302.09664), who take what is strictly greater; all the same words are right at any threshold.
    """

    name = "rouge_l"
    threshold = 0.3
    knows_languages = True

    def takes(self, threshold: float) -> bool:
        """From 0, above which is any word in common, to 1."""
        return 0 <= threshold <= 1

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """``f1`` is ROUGE-L, the best over the references."""
        assert self.threshold is not None
        if (same := _as_written(answer, references, self.normalize)) is not None:
            return Judgement(em=float(same), f1=float(same), correct=same)
        given, wanted = self.words(answer), [words for one in references if (words := self.words(one))]
        best = max((_rouge_l(given, words) for words in wanted), default=float(not references and not given))
        em = float(given in wanted) if wanted else best
        return Judgement(em=em, f1=best, correct=best > self.threshold or best == 1.0)

    def normalize(self, text: str) -> str:
        """The words."""
        return " ".join(self.words(text))

    def words(self, text: str) -> list[str]:
        """The words of a text."""
        if self.language is not None:
            return languages.normalize(text, self.language).split()
        return languages.words(unicodedata.normalize("NFKC", text).lower())


class Regex(CorrectnessRule):
    """References are regular expressions, one of which must be found in the answer, whatever the case."""

    name = "regex"

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """EM where one matches the whole answer.

        Raises:
            ConfigError: a reference is no regular expression.
        """
        patterns = list(map(_pattern, references))
        whole = any(pattern.fullmatch(answer.strip()) for pattern in patterns)
        held = any(pattern.search(answer) and (answer.strip() or whole) for pattern in patterns)
        return Judgement(em=float(whole), f1=float(bool(held)), correct=bool(held))


def _as_written(answer: str, references: Sequence[str], normalize: Callable[[str], str]) -> bool | None:
    """Whether an answer is written as a reference, where normalizing leaves nothing of them (``+``); None elsewhere."""
    written = {" ".join(text.casefold().split()) for text in references} - {""}
    if not written or any(map(normalize, references)):
        return None
    return " ".join(answer.casefold().split()) in written


@cache
def _pattern(reference: str) -> re.Pattern[str]:
    try:
        return re.compile(reference, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(
            f"the reference {reference[:60]!r} is no regular expression ({error}), which dataset.rule=regex takes; "
            "escape it, or choose another rule."
        ) from error


def rouge_l(first: str, second: str) -> float:
    """ROUGE-L of two texts, in [0, 1]; 0 where either has no words."""
    return _rouge_l(_words(first), _words(second))


@lru_cache(maxsize=1024)  # one text is compared with many
def _words(text: str) -> tuple[str, ...]:
    return tuple(RougeL().words(text))


def _rouge_l(given: Sequence[str], wanted: Sequence[str]) -> float:
    """2PR/(P+R) of the longest common subsequence, in [0, 1]."""
    return 2 * _in_common(given, wanted) / (len(given) + len(wanted)) if given and wanted else 0.0


def _in_common(given: Sequence[str], wanted: Sequence[str]) -> int:
    """Words of the longest common subsequence.

    A row of the usual table is one integer, whose bit at a place of ``wanted`` is 0 where the row is one longer than
    before that place (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
    """
    places: dict[str, int] = {}
    for place, word in enumerate(wanted):
        places[word] = places.get(word, 0) | 1 << place
    whole = row = (1 << len(wanted)) - 1
    for word in given:
        met = row & places.get(word, 0)
        row = (row + met) | (row - met)
    return len(wanted) - (row & whole).bit_count()


def all_rules() -> dict[str, CorrectnessRule]:
    """Every rule by its name, ours first.

    Raises:
        ConfigError: two have one name.
    """
    return dict(_all_rules(os.environ.get(VARIABLE, "")))


@cache
def _all_rules(_named: str) -> dict[str, CorrectnessRule]:
    """The rules, looked for once as long as the same modules are named."""
    ours: tuple[type[CorrectnessRule], ...] = (
        Squad,
        TriviaQA,
        Exact,
        HotpotQA,
        Contains,
        Numeric,
        Choice,
        RougeL,
        Regex,
        Judge,
    )
    found: dict[str, CorrectnessRule] = {}
    for rule in (*ours, *from_outside("rules", CorrectnessRule)):  # type: ignore[type-abstract]  # a base, not made
        if rule.name in found:
            raise ConfigError(
                f"two rules of correctness are called {rule.name} ({rule.__module__} and "
                f"{type(found[rule.name]).__module__}); give one another name."
            )
        found[rule.name] = rule()
    return found


def find_rule(name: str, *, threshold: float | None = None, language: str | None = None) -> CorrectnessRule:
    """The rule of a name.

    Args:
        name: of the rule.
        threshold: what an answer must reach; None: the rule's own.
        language: of the answers; None: English.

    Raises:
        ConfigError: there is none, or it takes no threshold or no language.
    """
    rules = all_rules()
    if name not in rules:
        raise ConfigError(f"dataset.rule={name} is not known; {closest(name, rules)}.")
    rule = copy.copy(rules[name])
    if threshold is not None:
        if rule.threshold is None:
            able = ", ".join(each.name for each in rules.values() if each.threshold is not None)
            raise ConfigError(f"dataset.rule_threshold={threshold} is for {able}; {name} has no threshold.")
        if not rule.takes(threshold):
            raise ConfigError(
                f"dataset.rule_threshold={threshold:g} makes all answers alike by the rule {name}, whose scores lie "
                f"from 0 to 1; its own threshold is {rule.threshold:g}."
            )
        rule.threshold = threshold
    if language is not None:
        if not rule.knows_languages:
            able = ", ".join(each.name for each in rules.values() if each.knows_languages)
            raise ConfigError(
                f"dataset.language={language} is for the rules {able}; {name} knows no languages."
            )
        if language not in languages.LANGUAGES:
            raise ConfigError(
                f"dataset.language={language} is not known; {closest(language, languages.LANGUAGES)}."
            )
        rule.language = language
    return rule
