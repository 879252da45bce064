"""What a trained probe is fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from probegrid.errors import DataError
from probegrid.evaluation.checks import BoolArray
from probegrid.evaluation.splits import StrArray


@dataclass(frozen=True)
class Features:
    """Examples by what is known of each: activations and text, with their labels and splits.

    Attributes:
        activations: float[n, l, d] of any float type, on the device that the fit is to run on; with no layer for a
            probe that needs none.
        layers: the l layers, in the order of the second axis.
        labels: bool[n].
        parts: `str[n]`, the split of each example, as in `evaluation.splits.Fold`.
        texts: n strings: the statements, or each question with the answer given; empty where they do not matter.

    Raises:
        DataError: an activation is not finite.
        ValueError: shapes do not agree.
    """

    activations: Tensor
    layers: tuple[int, ...]
    labels: BoolArray
    parts: StrArray
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.activations.ndim != 3 or self.activations.shape[:2] != (n, len(self.layers)):
            raise ValueError(
                f"activations must be [{n} examples, {len(self.layers)} layers, width], got "
                f"{list(self.activations.shape)}"
            )
        if self.parts.shape != (n,):
            raise ValueError(
                f"one split an example is needed: {n} examples, splits of shape {self.parts.shape}"
            )
        if self.texts and len(self.texts) != n:
            raise ValueError(f"one text an example is needed: {n} examples, {len(self.texts)} texts")
        for column, layer in enumerate(self.layers):
            wrong = ~torch.isfinite(self.activations[:, column]).all(dim=1)
            if wrong.any():
                raise DataError(
                    f"the activations of {int(wrong.sum())} of {n} examples are NaN or infinite at layer {layer}; "
                    "read them in a wider type (where it is float16, in model.dtype=float32, or bfloat16 on a card "
                    "from Ampere on)."
                )

    def activations_of(self, part: str) -> Tensor:
        """Activations of one split, a layer first: float32[l, n_part, d], contiguous."""
        rows = torch.from_numpy(np.flatnonzero(self.parts == part)).to(self.activations.device)
        return self.activations[rows].transpose(0, 1).float().contiguous()

    def labels_of(self, part: str) -> BoolArray:
        """Labels of one split: bool[n_part]."""
        labels: BoolArray = self.labels[self.parts == part]
        return labels

    def with_shuffled_labels(self, seed: int) -> Features:
        """Permute the labels within each split: the control task of Hewitt & Liang (2019), by the same counts.

        Args:
            seed: of the permutation alone, at least 0.
        """
        generator = np.random.default_rng([seed, *b"control"])
        labels = self.labels.copy()
        for part in np.unique(self.parts):
            labels[self.parts == part] = generator.permutation(self.labels_of(part))
        return replace(self, labels=labels)
