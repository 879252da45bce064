"""Mahalanobis distance to the true examples (Lee et al. 2018, arXiv 1807.03888), relative to all (Ren et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from probegrid.probes.base import ActivationProbe
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from torch import Tensor

    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.gaussian import FittedGaussian, Gaussian


class Away(Enum):
    """What the distance to the true examples is held against."""

    nothing = "nothing"
    """The distance itself."""
    everything = "everything"
    """The distance to all train examples: squares are subtracted, as Ren et al. do (arXiv 2209.15558)."""
    false = "false"
    """Half the distance to the false ones, with one covariance for both: linear discriminant analysis."""


@dataclass
class Mahalanobis(ActivationProbe):
    """Scores by how near a hidden state lies to the true examples of the train split, in their own covariance."""

    away: Away = Away.everything
    """What it is held against: ``everything`` (relative Mahalanobis), ``nothing`` or ``false``."""
    ridge: float | None = number_field(None, least=0, most=1e6, hint="give null or, say, 0.001")
    """Added to the covariance's diagonal; null: it is shrunk by Ledoit & Wolf (2004)."""

    def fit(self, features: Features) -> FittedGaussian:
        """Fit on the train split; nothing is chosen."""
        import torch

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.calibration import along
        from probegrid.probes.fitting.gaussian import FittedGaussian

        x, labels = features.activations_of(TRAIN).double(), torch.from_numpy(features.labels_of(TRAIN))
        pairs = [self.gaussians(layer, labels.to(x.device)) for layer in x]
        nothing = torch.zeros(len(pairs), dtype=torch.float64)
        fitted = FittedGaussian(
            features.layers,
            nothing + 1,
            tuple(near for near, _ in pairs),
            tuple(away for _, away in pairs if away is not None),
            nothing,
            0.5 if self.away is Away.false else 1.0,
        )
        raw = torch.stack([fitted.raw(row, layer) for row, layer in enumerate(x)])
        shifts, scales = along(raw, labels)
        return FittedGaussian(fitted.layers, scales, fitted.near, fitted.away, shifts, fitted.factor)

    def gaussians(self, x: Tensor, labels: Tensor) -> tuple[Gaussian, Gaussian | None]:
        """What is near and what it is held against, of one layer of activations float64[n, d]."""
        import torch

        from probegrid.probes.fitting.gaussian import Gaussian, precision_of

        if self.away is Away.false:
            means = [x[labels].mean(0), x[~labels].mean(0)]
            centred = torch.where(labels[:, None], x - means[0], x - means[1])
            precision = precision_of(centred, self.ridge, ddof=2)
            return Gaussian(means[0], precision), Gaussian(means[1], precision)
        near = Gaussian.of(x[labels], self.ridge)
        return near, Gaussian.of(x, self.ridge) if self.away is Away.everything else None
