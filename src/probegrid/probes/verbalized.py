"""Verbalized confidence: the probability that the model states for its own answer (Tian et al. 2023, arXiv 2305.14975).

Asked in a second turn, after the answer, as in their two-stage variant; the wording is ours. Knows the prompt and how a
stated probability is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probegrid.probes.base import AnswerProbe, Ask, Kind, Needs, Scores, Scoring

if TYPE_CHECKING:
    from probegrid.data.example import Question
    from probegrid.inference.generation import Generation

NAME = "verbalized"
_NUMBER = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<unit>%|/\s*(?P<of>\d+(?:\.\d+)?))?")


@dataclass
class Verbalized(AnswerProbe):
    """Scores an answer by the probability, stated by the model in words, that it is correct."""

    is_probability: ClassVar[bool] = True

    def needs(self, kind: Kind) -> Needs:
        """A reply to the question how likely the greedy answer is correct."""
        return Needs(asks={NAME: Ask(write=question_of, max_new_tokens=16, stop=("\n",))})

    def score(self, scoring: Scoring) -> Scores:
        """The stated probability; a reply that states none gives no score."""
        stated = [stated_probability(text) for text in scoring.asked[NAME].texts]
        missing = sum(math.isnan(value) for value in stated)
        notes = (
            [f"{missing} of {len(stated)} replies state no probability and are left out"] if missing else []
        )
        return Scores(stated, notes=notes)


def question_of(question: Question, found: Sequence[Generation]) -> str:
    """Ask for the probability that the greedy answer is correct."""
    return (
        f"Question: {question.text}\nProposed answer: {found[0].text}\n"
        "How likely is it that the proposed answer is correct? Reply with a probability between 0.0 and 1.0, nothing "
        "else.\nProbability:"
    )


def stated_probability(reply: str) -> float:
    """Read a probability: ``0.9``, ``.9``, ``90%``, ``90/100``, ``1``; the last one where there are several.

    Returns:
        In [0, 1]; not a number where none is stated. A number above 1 without a unit is a percentage, clipped to 1.
    """
    found = list(_NUMBER.finditer(reply))
    if not found:
        return math.nan
    value = float(found[-1]["number"])
    if (of := found[-1]["of"]) is not None:
        value = value / float(of) if float(of) else math.nan
    elif found[-1]["unit"] == "%" or value > 1:
        value /= 100
    return min(value, 1.0) if not math.isnan(value) else value
