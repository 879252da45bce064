"""Verbalized confidence in one stage: guess and probability in the same answer (Tian et al. 2023, arXiv 2305.14975).

The guess, not the answer to another prompt, is what is judged: the cell's own prompt asks for both
(``prompt=verbalized``, ``prompt=verbalized_top_k``). Knows where the probability stands in such an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probegrid.judges.asked import probability_beside_guess
from probegrid.probes.base import AnswerProbe, Scores, Scoring
from probegrid.probes.verbalized import scores_of


@dataclass
class VerbalizedOneStage(AnswerProbe):
    """Scores the guess in an answer by the probability that the same answer states for it."""

    is_probability: ClassVar[bool] = True

    def score(self, scoring: Scoring) -> Scores:
        """The number behind ``Probability:``, of several guesses behind ``P1:``; none where there is no such line."""
        return scores_of([probability_beside_guess(answer.text) for answer in scoring.reading.greedy])
