"""PCA reader: the direction in which activations vary most, turned to the true (Zou et al. 2023, arXiv 2310.01405)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.probes.base import ActivationProbe

if TYPE_CHECKING:
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe


@dataclass
class PCA(ActivationProbe):
    """First principal component of the train split, for which labels give the sign, and bias and scale along it."""

    def fit(self, features: Features) -> FittedProbe:
        """Fit on the train split; nothing is chosen."""
        import torch

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.calibration import along
        from probegrid.probes.fitting.fitted import FittedProbe
        from probegrid.probes.fitting.principal import first_component

        x, labels = features.activations_of(TRAIN).double(), torch.from_numpy(features.labels_of(TRAIN))
        directions = torch.stack([first_component(layer, labels.to(x.device)) for layer in x])
        shifts, scales = along(torch.einsum("lnd,ld->ln", x, directions), labels)
        weights = directions.cpu() * scales[:, None]
        return FittedProbe.of_weights(features.layers, weights, scales * shifts)
