"""G-NLL: the negative log-likelihood of the greedy answer (Aichberger et al. 2024, arXiv 2412.15176, eq. 11)."""

from __future__ import annotations

from dataclasses import dataclass

from probegrid.judges.likelihood import sum_logprob
from probegrid.probes.base import AnswerProbe, Scores, Scoring


@dataclass
class GNLL(AnswerProbe):
    """Scores an answer by its log-likelihood, minus its G-NLL: in nats, at most 0, not divided by its length."""

    def score(self, scoring: Scoring) -> Scores:
        """Sum the log-probabilities of each greedy answer's tokens; one without tokens by its stop's own."""
        return Scores([sum_logprob(answer) for answer in scoring.reading.greedy])
