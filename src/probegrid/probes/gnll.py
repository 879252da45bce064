"""G-NLL: the negative log-likelihood of the greedy answer (Aichberger et al. 2024, arXiv 2412.15176, eq. 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.probes import AnswerProbe

if TYPE_CHECKING:
    from probegrid.readings.answers import AnswerReading


@dataclass
class GNLL(AnswerProbe):
    """Scores an answer by its log-likelihood, minus its G-NLL: in nats, at most 0, not divided by its length."""

    def score(self, reading: AnswerReading) -> list[float]:
        """Sum the log-probabilities of each greedy answer's tokens; an answer without tokens scores 0."""
        return [sum(answer.token_logprobs) for answer in reading.greedy]
