"""How the answers of a cell are judged: which part of a text is the answer, and whether it is right.

Knows the set's rule and the prompt's pattern; nothing of models or metrics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from probegrid.data.example import Question, QuestionSet
from probegrid.evaluation.correctness import Judgement
from probegrid.evaluation.extraction import Extracted, by_pattern, compiled, without_thought
from probegrid.evaluation.rules import CorrectnessRule, find_rule
from probegrid.schema import PromptConfig

if TYPE_CHECKING:
    from probegrid.inference.generation import Generation

WRONG = Judgement(em=0.0, f1=0.0, correct=False)


def rule_of(data: QuestionSet) -> CorrectnessRule:
    """The rule of a set, told what the set tells it.

    Raises:
        ConfigError: there is none of its name, or it cannot be told that.
    """
    return find_rule(data.rule, **data.rule_settings)


@dataclass(frozen=True)
class Grader:
    """Judges answers."""

    rule: CorrectnessRule
    patterns: Sequence[re.Pattern[str]] = ()
    judged: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """What a second model said of answers, by question and text: how surely they are right."""

    @classmethod
    def of(cls, data: QuestionSet, prompt: PromptConfig) -> Grader:
        """The grader of a set under a prompt.

        Raises:
            ConfigError: the rule is not known, or the prompt's pattern is none.
        """
        return cls(rule_of(data), compiled(prompt.answer_pattern or ""))

    @property
    def extracts(self) -> bool:
        """Whether a part of a text is judged, and not all of it."""
        return bool(self.patterns) or self.rule.extracts

    def grade(self, question: Question, answer: Generation) -> tuple[Extracted | None, Judgement]:
        """The part of an answer that is judged, and the verdict; where there is no such part, it is wrong."""
        found = self.judged_part(question, answer)
        return found, WRONG if found is None else self._verdict(question, found.text)

    def _verdict(self, question: Question, text: str) -> Judgement:
        verdict = self.rule.judge(text, question.references)
        said = self.judged.get((question.id, text))
        if said is None or self.rule.threshold is None:
            return verdict
        return replace(verdict, correct=said >= self.rule.threshold)

    def judged_part(self, question: Question, answer: Generation) -> Extracted | None:
        """The part of an answer that is judged; all of it where nothing is looked for, but never a thought."""
        if self.extracts:
            return self._extract(question, answer)
        text = without_thought(answer.text) if answer.is_given else None
        return None if text is None else Extracted(text.strip(), "text")

    def _extract(self, question: Question, answer: Generation) -> Extracted | None:
        text, is_whole = without_thought(answer.text), answer.ended != "length"
        if text is None or not text.strip():
            return None
        if not self.patterns:
            return self.rule.extract(text, question.options, is_whole=is_whole)
        named = by_pattern(text, self.patterns)
        if not self.rule.extracts:
            return named
        if named is None:
            return self.rule.extract(text, question.options, is_whole=is_whole)
        is_cut = not is_whole and text.rstrip().endswith(named.text)
        inside = self.rule.extract(named.text, question.options, is_whole=not is_cut)
        return None if inside is None else Extracted(inside.text, named.by)
