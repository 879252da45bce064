"""Distances to Gaussians that were fitted to activations, one or two a layer.

Notation: n examples, d width, l layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probegrid.errors import ConfigError
from probegrid.probes.fitting.fitted import FittedByLayer

WIDEST = 20_000
"""Most features of a covariance: 3 GB in float64."""


@dataclass(frozen=True)
class Gaussian:
    """A mean float64[d] and the inverse of a covariance float64[d, d]."""

    mean: Tensor
    precision: Tensor

    @classmethod
    def of(cls, x: Tensor, ridge: float | None = None) -> Gaussian:
        """Fit to float64[n, d].

        Args:
            x: the examples.
            ridge: added to the diagonal of the covariance (n - 1); None: Ledoit & Wolf's shrinkage (2004).
        """
        return cls(x.mean(0), precision_of(x - x.mean(0), ridge, ddof=1))

    def squares(self, x: Tensor) -> Tensor:
        """Squared Mahalanobis distance of float64[n, d]: float64[n]."""
        mean, precision = (part.to(x.device) for part in (self.mean, self.precision))
        return ((x - mean) @ precision * (x - mean)).sum(1)


def check_width(width: int) -> None:
    """Refuse a covariance that no memory holds.

    Raises:
        ConfigError: it has more features than `WIDEST`.
    """
    if width > WIDEST:
        raise ConfigError(
            f"a covariance of {width} features takes {8 * width**2 / 1e9:.0f} GB, and several are needed; join fewer "
            "layers (probe.layers=[8,9,10]), set probe.joined=false, or use probe=logistic."
        )


def precision_of(centred: Tensor, ridge: float | None, *, ddof: int) -> Tensor:
    """Inverse of the covariance of centred examples float64[n, d]: float64[d, d].

    Args:
        centred: the examples less the mean of each one's class.
        ridge: added to the diagonal; None: Ledoit & Wolf's shrinkage, by which it is never singular.
        ddof: degrees of freedom that the means took.
    """
    check_width(centred.shape[1])
    if ridge is None:
        from sklearn.covariance import ledoit_wolf

        covariance = torch.from_numpy(ledoit_wolf(np.asarray(centred.cpu()), assume_centered=True)[0])
        covariance = covariance.to(centred.device)
    else:
        covariance = centred.T @ centred / (len(centred) - ddof)
        covariance = covariance + ridge * torch.eye(
            len(covariance), dtype=covariance.dtype, device=centred.device
        )
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        inverse: Tensor = torch.linalg.pinv(covariance, hermitian=True)
        return inverse
    return torch.cholesky_inverse(factor)


@dataclass(frozen=True)
class FittedGaussian(FittedByLayer):
    """``(d2_away - d2_near) * factor + shift``, squared distances to one Gaussian and, if there is one, another.

    Attributes:
        near: a Gaussian a layer, that of what is true.
        away: a Gaussian a layer; empty: none.
        shifts: float64[l].
        factor: on the squares.
    """

    kind: ClassVar[str] = "gaussian"
    layers: tuple[int, ...]
    scales: Tensor
    near: tuple[Gaussian, ...]
    away: tuple[Gaussian, ...]
    shifts: Tensor
    factor: float = 1.0
    column: int | None = None

    def values(self, row: int, activations: Tensor) -> Tensor:
        """As `FittedByLayer`."""
        return self.raw(row, activations) + self.shifts[row].to(activations.device)

    def raw(self, row: int, activations: Tensor) -> Tensor:
        """The same before the shift."""
        squares = -self.near[row].squares(activations)
        if self.away:
            squares = squares + self.away[row].squares(activations)
        return self.factor * squares

    def to_tensors(self, layer: int) -> dict[str, Tensor]:
        """As `FittedByLayer`."""
        row = self.layers.index(layer)
        found = {"shift": self.shifts[row : row + 1].contiguous(), "factor": torch.tensor([self.factor])}
        for name, each in (("near", self.near), ("away", self.away)):
            if each:
                found |= {
                    f"{name}_mean": each[row].mean.cpu(),
                    f"{name}_precision": each[row].precision.cpu(),
                }
        return found

    @classmethod
    def of_tensors(
        cls, layers: tuple[int, ...], scales: Tensor, tensors: Mapping[str, Tensor]
    ) -> FittedGaussian:
        """As `FittedByLayer`."""
        near = Gaussian(tensors["near_mean"], tensors["near_precision"])
        away = (Gaussian(tensors["away_mean"], tensors["away_precision"]),) if "away_mean" in tensors else ()
        return cls(layers, scales, (near,), away, tensors["shift"], float(tensors["factor"]))
