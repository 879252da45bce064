"""Nearest neighbours among the train examples (Sun et al. 2022, arXiv 2204.06507)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probegrid.probes.base import ActivationProbe
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.neighbours import FittedNeighbours


@dataclass
class KNN(ActivationProbe):
    """Scores by the share of true examples among the nearest, or by how near the k-th of them is."""

    k: int = number_field(50, least=1, most=10**6)
    """How many neighbours are looked at; all of them where there are fewer."""
    labelled: bool = True
    """Whether the neighbours' labels count; else minus the distance to the k-th true one, which takes no false ones."""
    normalize: bool = True
    """Whether hidden states are compared by direction (Sun et al. do) and not by place."""

    def fit(self, features: Features) -> FittedNeighbours:
        """Remember the train split; bias and scale by each example's neighbours among the others."""
        import torch

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.calibration import along
        from probegrid.probes.fitting.neighbours import FittedNeighbours

        x, labels = features.activations_of(TRAIN), torch.from_numpy(features.labels_of(TRAIN))
        kept = labels if not self.labelled else torch.ones_like(labels)
        nothing = torch.zeros(len(x), dtype=torch.float64)
        fitted = FittedNeighbours(
            features.layers,
            nothing + 1,
            tuple(layer[kept.to(x.device)].cpu() for layer in x),
            labels[kept],
            min(self.k, int(kept.sum())),
            self.labelled,
            self.normalize,
            nothing,
        )
        fewer = replace(fitted, k=min(fitted.k, int(kept.sum()) - 1)) if int(kept.sum()) > 1 else fitted
        raw = torch.stack(
            [fewer.raw(row, layer.double(), leave_out=self.labelled) for row, layer in enumerate(x)]
        )
        shifts, scales = along(raw, labels)
        return replace(fitted, shifts=shifts, scales=scales)
