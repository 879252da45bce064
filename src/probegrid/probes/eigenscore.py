"""EigenScore: how far samples spread in the hidden states (INSIDE, Chen et al. 2024, arXiv 2402.03744).

Knows hidden states of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probegrid.judges.states import ALPHA, mean_log_eigenvalue
from probegrid.probes.base import AnswerProbe, HiddenStates, Kind, Needs, Of, Scores, Scoring
from probegrid.schema.ranges import number_field


@dataclass
class EigenScore(AnswerProbe):
    """Scores an answer by minus the mean log eigenvalue of the covariance of its samples' hidden states."""

    fewest_samples: ClassVar[int] = 2
    alpha: float = number_field(ALPHA, above=0, most=1e6, hint="the paper's is 0.001")
    """Added to every eigenvalue."""

    def needs(self, kind: Kind) -> Needs:
        """The last token of each sample at the middle layer."""
        return Needs(samples=self.fewest_samples, hidden=HiddenStates(Of.samples, "middle", "answer_last"))

    def score(self, scoring: Scoring) -> Scores:
        """Minus the EigenScore of each question's samples."""
        assert scoring.hidden is not None
        return Scores(
            [
                -mean_log_eigenvalue(states[:, 0].double().cpu().numpy(), self.alpha)
                for states in scoring.hidden
            ]
        )
