"""The nearest training examples of each activation, a layer at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from probegrid.probes.fitting.fitted import FittedByLayer

_ROWS = 256


@dataclass(frozen=True)
class FittedNeighbours(FittedByLayer):
    """The share of true examples among the nearest, or minus the distance to the last of them, less a middle.

    Attributes:
        known: a layer each, float32[n, d], the training examples.
        labels: bool[n].
        k: how many are looked at.
        is_labelled: whether their labels count, and not their distance.
        is_normalized: whether directions are compared, and not places.
        shifts: float64[l].
    """

    kind: ClassVar[str] = "neighbours"
    layers: tuple[int, ...]
    scales: Tensor
    known: tuple[Tensor, ...]
    labels: Tensor
    k: int
    is_labelled: bool
    is_normalized: bool
    shifts: Tensor
    column: int | None = None

    def values(self, row: int, activations: Tensor) -> Tensor:
        """As `FittedByLayer`."""
        return self.raw(row, activations) + self.shifts[row].to(activations.device)

    def raw(self, row: int, activations: Tensor, *, leave_out: bool = False) -> Tensor:
        """The same before the shift; with its own place left out, of the training examples themselves."""
        known = self.known[row].to(activations.device).double()
        x = activations
        if self.is_normalized:
            x, known = (torch.nn.functional.normalize(each, dim=1) for each in (x, known))
        found = []
        for start in range(0, len(x), _ROWS):
            distances = torch.cdist(x[start : start + _ROWS], known)
            if leave_out:
                own = torch.arange(len(distances), device=x.device)
                distances[own, own + start] = float("inf")
            nearest = distances.topk(self.k, largest=False)
            if self.is_labelled:
                found.append(self.labels.to(x.device)[nearest.indices].double().mean(1))
            else:
                found.append(-nearest.values[:, -1])
        return torch.cat(found)

    def to_tensors(self, layer: int) -> dict[str, Tensor]:
        """As `FittedByLayer`."""
        row = self.layers.index(layer)
        flags = torch.tensor([self.k, int(self.is_labelled), int(self.is_normalized)])
        shift = self.shifts[row : row + 1].contiguous()
        return {
            "known": self.known[row].cpu(),
            "labels": self.labels.cpu(),
            "settings": flags,
            "shift": shift,
        }

    @classmethod
    def of_tensors(
        cls, layers: tuple[int, ...], scales: Tensor, tensors: Mapping[str, Tensor]
    ) -> FittedNeighbours:
        """As `FittedByLayer`."""
        k, is_labelled, is_normalized = tensors["settings"].tolist()
        return cls(
            layers,
            scales,
            (tensors["known"],),
            tensors["labels"],
            k,
            bool(is_labelled),
            bool(is_normalized),
            tensors["shift"],
        )
