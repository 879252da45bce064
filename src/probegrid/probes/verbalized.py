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

REPLY_TOKENS = 16
"""Longest reply: a number, and little beside it."""


@dataclass
class Verbalized(AnswerProbe):
    """Scores an answer by the probability, stated by the model in words, that it is correct."""

    is_probability: ClassVar[bool] = True

    def needs(self, kind: Kind) -> Needs:
        """A reply to the question how likely the greedy answer is correct."""
        return Needs(asks={VERBALIZED: verbalized_prompt()})

    def score(self, scoring: Scoring) -> Scores:
        """The stated probability; a reply that states none gives no score."""
        return scores_of([stated_probability(text) for text in scoring.asked[VERBALIZED].texts])


def scores_of(stated: Sequence[float]) -> Scores:
    """The stated probabilities as scores; how many there are none of is said."""
    missing = sum(map(math.isnan, stated))
    share = f"{missing} of {len(stated)} replies state no probability ({missing / max(1, len(stated)):.0%})"
    return Scores(stated, notes=[f"{share} and are left out"] if missing else [])


def verbalized_prompt() -> Ask:
    """The second turn, whose reply is a line."""
    return Ask(write=question_of, max_new_tokens=REPLY_TOKENS, stop=("\n",))


def question_of(question: Question, found: Sequence[Generation]) -> str:
    """Ask for the probability that the greedy answer is correct; what all questions share comes first."""
    return (
        "Below are a question and a proposed answer to it. Reply with the probability, between 0.0 and 1.0, that the "
        "proposed answer is correct, nothing else.\n\n"
        f"Question: {question.text}\nProposed answer: {found[0].text}\nProbability:"
    )
