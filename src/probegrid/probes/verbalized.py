"""Verbalized confidence: the probability that the model states for its own answer (Tian et al. 2023, arXiv 2305.14975).

Asked in a second turn, after the answer, as in their two-stage variant; the wording is ours. Knows the prompt and how a
stated probability is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probegrid.judges.asked import VERBALIZED, stated_probability
from probegrid.probes.base import AnswerProbe, Ask, Kind, Needs, Scores, Scoring

if TYPE_CHECKING:
    from probegrid.data.example import Question
    from probegrid.inference.generation import Generation


@dataclass
class Verbalized(AnswerProbe):
    """Scores an answer by the probability, stated by the model in words, that it is correct."""

    is_probability: ClassVar[bool] = True

    def needs(self, kind: Kind) -> Needs:
        """A reply to the question how likely the greedy answer is correct."""
        return Needs(asks={VERBALIZED: verbalized_prompt()})

    def score(self, scoring: Scoring) -> Scores:
        """The stated probability; a reply that states none gives no score."""
        stated = [stated_probability(text) for text in scoring.asked[VERBALIZED].texts]
        missing = sum(math.isnan(value) for value in stated)
        notes = (
            [f"{missing} of {len(stated)} replies state no probability and are left out"] if missing else []
        )
        return Scores(stated, notes=notes)


def verbalized_prompt() -> Ask:
    """The second turn, whose reply is a line."""
    return Ask(write=question_of, max_new_tokens=16, stop=("\n",))


def question_of(question: Question, found: Sequence[Generation]) -> str:
    """Ask for the probability that the greedy answer is correct."""
    return (
        f"Question: {question.text}\nProposed answer: {found[0].text}\n"
        "How likely is it that the proposed answer is correct? Reply with a probability between 0.0 and 1.0, nothing "
        "else.\nProbability:"
    )
