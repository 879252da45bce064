"""Statements against their negations: what makes one as true as the other is false (CCS, Burns et al. 2022).

Knows which statement is whose negation by their words, and the loss that no label takes part in.

Notation: l layers, p pairs, r restarts, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from probegrid.evaluation.checks import BoolArray, IntArray
from probegrid.evaluation.subjects import without_negation
from probegrid.probes.fitting.fitted import FittedByLayer

_RATE, _DECAY = 1e-3, 0.01
_NOBODY = -1
_PARTS = ("weights", "biases", "means", "spreads", "shifts")


@dataclass(frozen=True)
class Contrasts:
    """Which of n statements are negated, and which is whose negation.

    Attributes:
        are_negated: bool[n].
        partners: intp[n], the row of each one's negation, or of what it negates; -1 where there is none.
    """

    are_negated: BoolArray
    partners: IntArray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Contrasts:
        """Find them by their words; of statements that recur the first is the first's negation, and so on."""
        said = [without_negation(text) for text in texts]
        waiting: dict[tuple[str, bool], list[int]] = {}
        partners = np.full(len(texts), _NOBODY, dtype=np.intp)
        for row, (words, is_negated) in enumerate(said):
            others = waiting.get((words, not is_negated))
            if others:
                other = others.pop(0)
                partners[row], partners[other] = other, row
            else:
                waiting.setdefault((words, is_negated), []).append(row)
        return cls(np.array([is_negated for _, is_negated in said], dtype=np.bool_), partners)

    @property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """Rows of the affirmative statements that have a negation, and of their negations: intp[p] each."""
        rows = np.flatnonzero((self.partners != _NOBODY) & ~self.are_negated)
        return rows, self.partners[rows]


def contrast_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """``mean((p+ - (1 - p-))^2 + min(p+, p-)^2)`` over the last dimension, as the official code has it.

    Args:
        positive: [..., p], probabilities that the affirmative statements are true.
        negative: [..., p], of their negations.
    """
    consistent = (positive - (1 - negative)) ** 2
    informative = torch.minimum(positive, negative) ** 2
    return (consistent + informative).mean(-1)


def contrast_score(own: Tensor, others: Tensor) -> Tensor:
    """``(p + 1 - p of the negation) / 2``."""
    return (own + 1 - others) / 2


def train_contrast(
    positive: Tensor, negative: Tensor, *, restarts: int, epochs: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Weights and bias of least loss among the restarts: AdamW at 1e-3, decay 0.01, all pairs in every step.

    Begun as torch's linear layer is. All layers and restarts go on together.

    Args:
        positive: float32[l, p, d], normalized activations of the affirmative statements.
        negative: float32[l, p, d], of their negations, normalized by themselves.
        restarts: r.
        epochs: steps.
        seed: of the beginnings.

    Returns:
        float32[l, d] and float32[l].
    """
    layers, _, width = positive.shape
    weights, biases = (
        each.to(positive.device).requires_grad_() for each in beginnings(layers, restarts, width, seed)
    )
    optimizer = torch.optim.AdamW([weights, biases], lr=_RATE, weight_decay=_DECAY)

    def losses() -> Tensor:
        sides = (torch.sigmoid(weights @ side.transpose(1, 2) + biases) for side in (positive, negative))
        return contrast_loss(*sides)

    with torch.enable_grad():
        for _ in range(epochs):
            optimizer.zero_grad()
            losses().sum().backward()
            optimizer.step()
    with torch.no_grad():
        best = losses().argmin(1)
        rows = torch.arange(layers, device=best.device)
        return weights[rows, best].detach(), biases[rows, best, 0].detach()


def beginnings(layers: int, restarts: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights float32[l, r, d] and biases float32[l, r, 1], uniform within ``1 / sqrt(d)``."""
    generator = torch.Generator().manual_seed(seed)
    bound = width**-0.5
    drawn = torch.rand(layers, restarts, width + 1, generator=generator) * 2 * bound - bound
    return drawn[..., :-1].contiguous(), drawn[..., -1:].contiguous()


@dataclass(frozen=True)
class FittedContrast(FittedByLayer):
    """``(p + 1 - p of the negation) / 2``, less a middle; a statement whose negation is not there has its own p alone.

    ``p = sigmoid((x - mean) / spread @ weight + bias)`` with mean and spread of the affirmative or of the negated
    statements of the pairs it learned from.

    Attributes:
        weights: float32[l, d].
        biases: float64[l].
        means: float32[l, 2, d], of affirmative and of negated statements.
        spreads: float32[l, 2, d].
        shifts: float64[l].
    """

    kind: ClassVar[str] = "contrast"
    layers: tuple[int, ...]
    scales: Tensor
    weights: Tensor
    biases: Tensor
    means: Tensor
    spreads: Tensor
    shifts: Tensor
    column: int | None = None
    notes: tuple[str, ...] = ()

    def values(self, row: int, activations: Tensor) -> Tensor:
        """As `FittedByLayer`; statements whose words are not known are taken for affirmative, each by itself."""
        return self.values_of(row, activations, [""] * len(activations))

    def values_of(self, row: int, activations: Tensor, texts: Sequence[str]) -> Tensor:
        """As `FittedByLayer`, each statement held against its negation where that is among them."""
        return self.raw(row, activations, texts) + self.shifts[row].to(activations.device)

    def raw(self, row: int, activations: Tensor, texts: Sequence[str]) -> Tensor:
        """The same before the shift, in [0, 1]."""
        contrasts = Contrasts.of(texts or [""] * len(activations))
        own = self._probabilities(row, activations, contrasts.are_negated)
        partners = torch.from_numpy(contrasts.partners).to(own.device)
        return torch.where(partners == _NOBODY, own, contrast_score(own, own[partners]))

    def _probabilities(self, row: int, activations: Tensor, are_negated: BoolArray) -> Tensor:
        side = torch.from_numpy(are_negated.astype(np.int64)).to(activations.device)
        mean, spread = (each[row].to(activations.device).double() for each in (self.means, self.spreads))
        weight = self.weights[row].to(activations.device).double()
        slopes = weight / spread
        offsets = self.biases[row].to(activations.device) - (mean * slopes).sum(1)
        return torch.sigmoid((activations @ slopes.T + offsets).gather(1, side[:, None])[:, 0])

    def turned(self, rows: Tensor) -> FittedContrast:
        """The same with true for false in some layers, bool[l]: the weight and the bias, both."""
        signs = 1 - 2 * rows.double()
        return replace(self, weights=self.weights * signs.float()[:, None], biases=self.biases * signs)

    def to_tensors(self, layer: int) -> dict[str, Tensor]:
        """As `FittedByLayer`."""
        row = self.layers.index(layer)
        return {name: getattr(self, name)[row : row + 1].contiguous() for name in _PARTS}

    @classmethod
    def of_tensors(
        cls, layers: tuple[int, ...], scales: Tensor, tensors: Mapping[str, Tensor]
    ) -> FittedContrast:
        """As `FittedByLayer`."""
        weights, biases, means, spreads, shifts = (tensors[name] for name in _PARTS)
        return cls(layers, scales, weights, biases, means, spreads, shifts)
