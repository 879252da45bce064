"""Judges of hidden states of samples: EigenScore (INSIDE, Chen et al. 2024, arXiv 2402.03744).

Knows vectors.
"""

from __future__ import annotations

import numpy as np

from probegrid.judges.evidence import Evidence, Floats, Read
from probegrid.judges.registry import judge

ALPHA = 1e-3


@judge(Read.samples, Read.states)
def eigenscore(evidence: Evidence) -> float:
    """The mean log-eigenvalue of the covariance of the samples' hidden states, how far they spread."""
    assert evidence.states is not None
    return mean_log_eigenvalue(evidence.states)


def mean_log_eigenvalue(states: Floats, alpha: float = ALPHA) -> float:
    """``1/m sum log eig(Z J Z^T + alpha I)`` with J centring each vector over its features; natural logarithm.

    The official code divides by ``d - 1`` and takes log10.

    Args:
        states: Z, float64[m samples, d].
        alpha: positive.
    """
    centred = states - states.mean(axis=1, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(centred @ centred.T).clip(min=0)
    return float(np.log(eigenvalues + alpha).mean())
