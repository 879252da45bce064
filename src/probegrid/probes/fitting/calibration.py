"""From any score of a training set to log-odds: a shift and a positive scale, by a logistic fit along it."""

from __future__ import annotations

import torch
from torch import Tensor

from probegrid.probes.fitting.newton import fit_logistic
from probegrid.probes.fitting.standardization import Standardization


def along(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale by which ``scale * (value + shift)`` is the log-odds of true.

    Args:
        values: float64[l, n], a score a layer and example.
        labels: bool[n].

    Returns:
        float64[l] each; the scale is next to nothing where larger values are not more often true.
    """
    columns = values.unsqueeze(-1).float()
    standardization = Standardization.of(columns)
    weights, biases = fit_logistic(standardization.apply(columns), labels, [1.0])
    slopes, biases = standardization.fold(weights[:, 0], biases[:, 0])
    slope = slopes[:, 0]
    spread = values.std(1).clamp(min=1e-30)
    says = slope > 1e-6 / spread
    scale = torch.where(says, slope, 1e-6 / spread)
    shift = torch.where(says, biases / scale, -values.mean(1))
    return shift.cpu(), scale.cpu()
