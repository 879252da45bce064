"""L2 logistic regression for many layers and penalties, the exact optimum of each (`objective`).

Knows which way is fast where: all problems in one computation on a GPU (`newton_batched`), one layer after another
along its penalties on a CPU (`newton_path`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probegrid.probes.fitting.newton_batched import fit_batched
from probegrid.probes.fitting.newton_path import fit_paths


def fit_logistic(
    x: Tensor, labels: Tensor, penalties: Sequence[float], *, balanced: bool = False
) -> tuple[Tensor, Tensor]:
    """Fit one logistic regression a layer and penalty.

    Args:
        x: float32[l, n, d], standardized; the fit runs on its device.
        labels: bool[n], both values among them.
        penalties: k inverse strengths of the regularization, scikit-learn's ``C``; positive.
        balanced: weight the examples so that both classes count alike (``class_weight="balanced"``).

    Returns:
        Weights float64[l, k, d] and biases float64[l, k].
    """
    targets = labels.to(x.device, torch.float64)
    sample_weights = class_weights(targets) if balanced else torch.ones_like(targets)
    strengths = 1 / (torch.tensor(penalties, dtype=torch.float64, device=x.device) * sample_weights.sum())
    fit = fit_batched if x.is_cuda else fit_paths
    return fit(x, targets, sample_weights / sample_weights.sum(), strengths)


def class_weights(targets: Tensor) -> Tensor:
    """Weight of each example by which both classes count alike, with mean 1: float64[n] from float64[n] in {0, 1}."""
    share = targets.mean()
    return torch.where(targets > 0, 0.5 / share, 0.5 / (1 - share))
