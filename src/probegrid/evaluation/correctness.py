"""Whether a generated answer is right: exact match and token F1, by each data set's official rule.

The two official normalizations differ, and so do the verdicts:

- SQuAD (evaluate-v1.1.py and evaluate-v2.0.py, Rajpurkar et al. 2016, 2018) **deletes** ASCII punctuation:
  "co-op" becomes "coop".
- TriviaQA (triviaqa_evaluation.py, Joshi et al. 2017) **replaces** it by a space, and curly single quotes and
  the acute accent with it: "co-op" becomes "co op".

Both lower the case first, then drop the words a, an, the, then squeeze spaces.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACE_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "\u2018\u2019\u00b4`", " "))
SQUAD_MIN_F1 = 0.5
"""Farquhar et al. 2024 (semantic_uncertainty)."""


class Rule(StrEnum):
    """A data set's normalization, and what it takes to be correct by it.

    Attributes:
        SQUAD: correct when F1 >= 0.5 (the threshold of Farquhar et al. 2024, semantic_uncertainty). A
            question without references is unanswerable (v2): correct when the answer normalizes to nothing.
        TRIVIA_QA: correct on exact match with any alias.
    """

    SQUAD = "squad"
    TRIVIA_QA = "trivia_qa"


@dataclass(frozen=True)
class Judgement:
    """One answer held against its references.

    Attributes:
        em: exact match after normalization, 0.0 or 1.0, the best over the references.
        f1: token F1 in [0, 1], the best over the references.
        correct: the verdict by the rule.
    """

    em: float
    f1: float
    correct: bool


@dataclass(frozen=True)
class AnswerSet:
    """The judgements of a whole set of questions.

    Attributes:
        judgements: one a question, in their order; a question without an answer is judged wrong.
        missing: ids of the questions that have no answer.
        unknown: ids of the answers that belong to no question, which are left out.
    """

    judgements: dict[str, Judgement]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def exact_match(self) -> float:
        """Mean EM in [0, 1] over all questions, missing answers counting 0; `nan` without questions."""
        return self._mean([judgement.em for judgement in self.judgements.values()])

    @property
    def f1(self) -> float:
        """Mean F1 in [0, 1] over all questions, missing answers counting 0; `nan` without questions."""
        return self._mean([judgement.f1 for judgement in self.judgements.values()])

    @property
    def accuracy(self) -> float:
        """Share of correct answers in [0, 1] over all questions; `nan` without questions."""
        return self._mean([float(judgement.correct) for judgement in self.judgements.values()])

    def report(self) -> str:
        """Say in one sentence how many answers are missing or belong to no question; empty when none."""
        faults = []
        if self.missing:
            faults.append(
                f"{len(self.missing)} of {len(self.judgements)} questions have no answer and count as wrong "
                f"({_some(self.missing)})"
            )
        if self.unknown:
            faults.append(
                f"{len(self.unknown)} answers belong to no question and are left out ({_some(self.unknown)})"
            )
        return "; ".join(faults)

    @staticmethod
    def _mean(values: Sequence[float]) -> float:
        return sum(values) / len(values) if values else float("nan")


def normalize(text: str, rule: Rule) -> str:
    """Normalize an answer or a reference the way the rule's official scorer does."""
    words = text.lower().translate(_DELETE_PUNCTUATION if rule is Rule.SQUAD else _SPACE_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", words).split())


def exact_match(answer: str, reference: str, rule: Rule) -> float:
    """1.0 when the two are equal after normalization, else 0.0."""
    return float(normalize(answer, rule) == normalize(reference, rule))


def token_f1(answer: str, reference: str, rule: Rule) -> float:
    """F1 in [0, 1] of the normalized bags of words; two empty ones agree (as in SQuAD v2), one does not."""
    return _bag_f1(normalize(answer, rule).split(), normalize(reference, rule).split())


def judge(answer: str, references: Sequence[str], rule: Rule) -> Judgement:
    """Hold one answer against all references.

    References that normalize to nothing are dropped: an empty answer would match them. When none is left, a
    SQuAD question counts as unanswerable (EM, F1 and verdict are 1 when the answer normalizes to nothing, as
    in evaluate-v2.0.py), and no answer to a TriviaQA question can be right.
    """
    em, f1 = overlap(answer, references, partial(normalize, rule=rule), empty_is_right=rule is Rule.SQUAD)
    return Judgement(em=em, f1=f1, correct=f1 >= SQUAD_MIN_F1 if rule is Rule.SQUAD else em == 1.0)


def overlap(
    answer: str, references: Sequence[str], normalize: Callable[[str], str], *, empty_is_right: bool
) -> tuple[float, float]:
    """Exact match and token F1 under any normalization, each the best over the references.

    Args:
        answer: what was said.
        references: accepted answers; those that normalize to nothing are dropped.
        normalize: makes words with single spaces of a text.
        empty_is_right: whether an answer that normalizes to nothing is right where no reference is left.
    """
    given = normalize(answer)
    wanted = [normalized for reference in references if (normalized := normalize(reference))]
    if not wanted and empty_is_right:
        wanted = [""]
    f1 = max((_bag_f1(given.split(), reference.split()) for reference in wanted), default=0.0)
    return float(given in wanted), f1


def judge_all(answers: Mapping[str, str], references: Mapping[str, Sequence[str]], rule: Rule) -> AnswerSet:
    """Judge the answers of a whole set, both given by question id.

    The official SQuAD scorers pass over a missing answer with a line on the terminal (and v2's takes it out
    of the mean); here it is judged wrong and its id is reported.
    """
    nothing = Judgement(em=0.0, f1=0.0, correct=False)
    return AnswerSet(
        judgements={
            key: judge(answers[key], wanted, rule) if key in answers else nothing
            for key, wanted in references.items()
        },
        missing=tuple(key for key in references if key not in answers),
        unknown=tuple(key for key in answers if key not in references),
    )


def _bag_f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    """2 * shared / (sum of lengths), the harmonic mean of precision and recall without rounding errors."""
    if not given or not wanted:
        return float(given == wanted)
    shared = (Counter(given) & Counter(wanted)).total()
    return 2 * shared / (len(given) + len(wanted))


def _some(ids: Sequence[str], limit: int = 3) -> str:
    return ", ".join(ids[:limit]) + (", ..." if len(ids) > limit else "")
