"""Mass-mean probe: the difference of the class means as a direction (Marks & Tegmark 2023, arXiv 2310.06824, 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.probes.base import ActivationProbe

if TYPE_CHECKING:
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe


@dataclass
class MassMean(ActivationProbe):
    """Direction from the mean of the false to the mean of the true; bias and scale from a logistic fit along it."""

    whiten: bool = False
    """Multiply the direction by the pseudo-inverse of the pooled within-class covariance, as linear discriminant
    analysis does. With more features than examples it sees only the space in which examples of a class differ."""

    def fit(self, features: Features) -> FittedProbe:
        """Fit on the train split; nothing is chosen."""
        import torch

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.class_means import mean_difference, whitened
        from probegrid.probes.fitting.fitted import FittedProbe
        from probegrid.probes.fitting.newton import fit_logistic
        from probegrid.probes.fitting.standardization import Standardization

        x, labels = features.activations_of(TRAIN), torch.from_numpy(features.labels_of(TRAIN))
        direction = whitened if self.whiten else mean_difference
        directions = torch.stack([direction(layer.double(), labels.to(x.device)) for layer in x])
        projections = torch.stack(
            [(layer.double() @ row)[:, None] for layer, row in zip(x, directions, strict=True)]
        )
        standardization = Standardization.of(projections)
        weights, biases = fit_logistic(standardization.apply(projections), labels, [1.0])
        slopes, biases = standardization.fold(weights[:, 0], biases[:, 0])
        return FittedProbe.of_weights(features.layers, slopes * directions, biases)
