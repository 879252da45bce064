"""SAPLMA: a small network on the hidden state (Azaria & Mitchell 2023, arXiv 2304.13734)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.probes.base import ActivationProbe
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.network import FittedNetwork


@dataclass
class SAPLMA(ActivationProbe):
    """Three hidden layers of 256, 128 and 64 units, trained with Adam on raw activations in batches of 32."""

    epochs: int = number_field(5, least=1, most=10**6, below="trains nothing")
    """Passes over the train split."""

    def fit(self, features: Features) -> FittedNetwork:
        """Fit on the train split; nothing is chosen but the layer."""
        import torch

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.network import FittedNetwork, train_network

        labels = torch.from_numpy(features.labels_of(TRAIN))
        found = [
            train_network(x, labels, epochs=self.epochs, seed=self.seed)
            for x in features.activations_of(TRAIN)
        ]
        return FittedNetwork(
            features.layers,
            torch.ones(len(found), dtype=torch.float64),
            tuple(tuple(each.cpu() for each in weights) for weights, _ in found),
            tuple(tuple(each.cpu() for each in biases) for _, biases in found),
        )
