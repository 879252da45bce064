"""A small network on activations, one a layer, trained by gradient descent (SAPLMA, Azaria & Mitchell 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from probegrid.probes.fitting.fitted import FittedByLayer

WIDTHS = (256, 128, 64)
"""Hidden units of each of its three layers."""
_BATCH, _RATE = 32, 1e-3


@dataclass(frozen=True)
class FittedNetwork(FittedByLayer):
    """``d - 256 - 128 - 64 - 1`` with rectifiers; a score is its logit.

    Attributes:
        weights: a layer each, the four matrices float32[out, in].
        biases: a layer each, the four vectors float32[out].
    """

    kind: ClassVar[str] = "network"
    layers: tuple[int, ...]
    scales: Tensor
    weights: tuple[tuple[Tensor, ...], ...]
    biases: tuple[tuple[Tensor, ...], ...]
    column: int | None = None

    def values(self, row: int, activations: Tensor) -> Tensor:
        """As `FittedByLayer`."""
        return logits(
            activations,
            [each.to(activations.device).double() for each in self.weights[row]],
            [each.to(activations.device).double() for each in self.biases[row]],
        )

    def to_tensors(self, layer: int) -> dict[str, Tensor]:
        """As `FittedByLayer`."""
        row = self.layers.index(layer)
        named = {"weights": self.weights[row], "bias": self.biases[row]}
        return {f"{name}_{place}": each.cpu() for name, of in named.items() for place, each in enumerate(of)}

    @classmethod
    def of_tensors(
        cls, layers: tuple[int, ...], scales: Tensor, tensors: Mapping[str, Tensor]
    ) -> FittedNetwork:
        """As `FittedByLayer`."""
        weights, biases = (
            tuple(tensors[f"{name}_{place}"] for place in range(len(WIDTHS) + 1))
            for name in ("weights", "bias")
        )
        return cls(layers, scales, (weights,), (biases,))


def logits(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    """Of activations [n, d]: [n]."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = torch.relu(x @ weight.T + bias)
    return (x @ weights[-1].T + biases[-1])[:, 0]


def train_network(x: Tensor, labels: Tensor, *, epochs: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases after so many passes: Adam at 1e-3, batches of 32, cross-entropy, nothing else.

    Begun as Keras does (Glorot's uniform weights, no biases).

    Args:
        x: float32[n, d].
        labels: bool[n].
        epochs: passes over the examples.
        seed: of the beginning and of the order.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = (x.shape[1], *WIDTHS, 1)
    weights, biases = [], []
    for inner, outer in pairwise(sizes):
        bound = (6 / (inner + outer)) ** 0.5
        drawn = (torch.rand(outer, inner, generator=generator) * 2 - 1) * bound
        weights.append(drawn.to(x.device).requires_grad_())
        biases.append(torch.zeros(outer, device=x.device, requires_grad=True))
    optimizer = torch.optim.Adam([*weights, *biases], lr=_RATE)
    targets = labels.to(x.device, torch.float32)
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(x), generator=generator).to(x.device)
            for batch in order.split(_BATCH):
                optimizer.zero_grad()
                found = logits(x[batch], weights, biases)
                torch.nn.functional.binary_cross_entropy_with_logits(found, targets[batch]).backward()
                optimizer.step()
    return [each.detach() for each in weights], [each.detach() for each in biases]
