"""Standardization of activations, fitted on the train split and folded back into the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Standardization:
    """Mean and standard deviation of every feature.

    Attributes:
        mean: float64[l, d].
        scale: float64[l, d], the population standard deviation; 1 where a feature does not vary.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Standardization:
        """Fit on activations float[l, n, d], in float64 a layer at a time."""
        moments = [torch.std_mean(layer.double(), dim=0, correction=0) for layer in x]
        scale, mean = (torch.stack(column) for column in zip(*moments, strict=True))
        constant = scale <= 1e-12 * mean.abs()
        return cls(mean, torch.where(constant, 1.0, scale))

    def apply(self, x: Tensor) -> Tensor:
        """Standardize activations float[l, n, d] into a new float32 tensor."""
        standardized = torch.empty_like(x, dtype=torch.float32)
        for row, layer in enumerate(x):
            standardized[row] = (layer.double() - self.mean[row]) / self.scale[row]
        return standardized

    def fold(self, weights: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
        """Turn weights on standardized into weights on raw activations: ``w / s`` and ``b - sum(w m / s)``.

        Args:
            weights: float64[l, d].
            biases: float64[l].
        """
        raw = weights / self.scale
        return raw, biases - (raw * self.mean).sum(dim=1)
