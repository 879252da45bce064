"""Principal components, and the directions of truth and of polarity (TTPD, Bürger et al. 2024, arXiv 2407.12831)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def first_component(x: Tensor, labels: Tensor) -> Tensor:
    """Unit direction of largest variance, along which the true lie higher: float64[d].

    Args:
        x: float64[n, d].
        labels: bool[n].
    """
    centred = x - x.mean(0)
    if len(x) < x.shape[1]:  # the smaller of the two matrices
        _, vectors = torch.linalg.eigh(centred @ centred.T)
        direction = centred.T @ vectors[:, -1]
    else:
        direction = torch.linalg.eigh(centred.T @ centred)[1][:, -1]
    norm = direction.norm()
    direction = direction / norm if norm > 0 else direction
    difference = (centred[labels].mean(0) - centred[~labels].mean(0)) @ direction
    turned: Tensor = direction if difference >= 0 else -direction
    return turned


def truth_directions(
    x: Tensor, labels: Tensor, polarities: Tensor, sources: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """General and polarity-sensitive direction of truth: least squares of activations on truth, and on it by polarity.

    Args:
        x: float64[n, d]; each dataset is centred by its own mean.
        labels: bool[n].
        polarities: float64[n], 1 of affirmative statements and -1 of negated ones; 0: not known.
        sources: the dataset of each.

    Returns:
        float64[d] each; the second is 0 where no polarity is known.
    """
    centred = x.clone()
    names = list(sources)
    for name in dict.fromkeys(names):
        rows = torch.tensor([row for row, each in enumerate(names) if each == name], device=x.device)
        centred[rows] -= centred[rows].mean(0)
    truth = labels.to(x) * 2 - 1
    design = torch.stack([truth, truth * polarities], 1)
    if not polarities.any():
        design = design[:, :1]
    found = torch.linalg.lstsq(design, centred).solution
    return found[0], found[1] if len(found) > 1 else torch.zeros_like(found[0])
