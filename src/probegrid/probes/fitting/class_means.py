"""Directions between the means of two classes."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_difference(x: Tensor, labels: Tensor) -> Tensor:
    """Mean of the true minus mean of the false: float64[d] from float64[n, d] and bool[n]."""
    difference: Tensor = x[labels].mean(dim=0) - x[~labels].mean(dim=0)
    return difference


def whitened(x: Tensor, labels: Tensor) -> Tensor:
    """Difference of the means times the pseudo-inverse of the pooled within-class covariance S: float64[d].

    With ``S = X' X / n`` and more features than examples, ``pinv(S) = X' pinv(X X' / n)^2 X / n``, which needs the
    eigenvectors of an n x n matrix and not of a d x d one.

    Args:
        x: float64[n, d].
        labels: bool[n].
    """
    difference = mean_difference(x, labels)
    centered = torch.where(labels[:, None], x - x[labels].mean(dim=0), x - x[~labels].mean(dim=0))
    n, width = x.shape
    if width <= n:
        covariance = centered.T @ centered / n
        direction: Tensor = torch.linalg.pinv(covariance, hermitian=True) @ difference
    else:
        inverse = torch.linalg.pinv(centered @ centered.T / n, hermitian=True)
        direction = centered.T @ (inverse @ (inverse @ (centered @ difference))) / n
    return direction
