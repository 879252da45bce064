"""EigenScore: how far samples spread in the hidden states (INSIDE, Chen et al. 2024, arXiv 2402.03744).

Knows hidden states of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probegrid.probes.base import AnswerProbe, HiddenStates, Kind, Needs, Of, Scores, Scoring
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class EigenScore(AnswerProbe):
    """Scores an answer by minus the mean log eigenvalue of the covariance of its samples' hidden states."""

    fewest_samples: ClassVar[int] = 2
    alpha: float = number_field(1e-3, above=0, most=1e6, hint="the paper's is 0.001")
    """Added to every eigenvalue."""

    def needs(self, kind: Kind) -> Needs:
        """The last token of each sample at the middle layer."""
        return Needs(samples=self.fewest_samples, hidden=HiddenStates(Of.samples, "middle", "answer_last"))

    def score(self, scoring: Scoring) -> Scores:
        """Minus the EigenScore of each question's samples."""
        assert scoring.hidden is not None
        return Scores([-eigenscore(states[:, 0], self.alpha) for states in scoring.hidden])


def eigenscore(states: Tensor, alpha: float) -> float:
    """``1/m sum log eig(Z J Z^T + alpha I)`` with J centring each vector over its features; natural logarithm, float64.

    The official code divides by ``d - 1`` and takes log10.

    Args:
        states: Z, [m samples, d].
        alpha: positive.
    """
    import torch

    centred = states.double() - states.double().mean(dim=1, keepdim=True)
    covariance = centred @ centred.T
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp(min=0)
    return float((eigenvalues + alpha).log().mean())
