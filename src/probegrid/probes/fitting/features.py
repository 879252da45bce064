"""What a trained probe is fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from probegrid.errors import DataError
from probegrid.evaluation.checks import BoolArray, FloatArray, IntArray
from probegrid.evaluation.splits import TEST, TRAIN, UNUSED, VALIDATION, StrArray
from probegrid.evaluation.subjects import normalized


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
        sources: n strings: the list each statement was taken from; empty where they are not known.
        entropies: float64[n], the semantic entropy of each question's samples; None where there are none.

    Raises:
        DataError: an activation is not finite.
        ValueError: shapes do not agree.
    """

    activations: Tensor
    layers: tuple[int, ...]
    labels: BoolArray
    parts: StrArray
    texts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    entropies: FloatArray | None = None

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

    def joined(self) -> Features:
        """The layers behind one another, as one layer that has the number of the deepest: activations [n, 1, l * d]."""
        return replace(self, activations=self.activations.flatten(1)[:, None], layers=self.layers[-1:])

    def with_shuffled_labels(self, seed: int) -> Features:
        """Give each text, wherever it recurs, one label by chance: the control task of Hewitt & Liang (2019).

        A text is its words without case, outer white space and final punctuation; without texts each example has its
        own. The texts of a split share out its labels, so that it keeps its counts as nearly as whole texts allow;
        those that an earlier split has too (training before validation before test) have their label from it, so that
        nothing of the test split matters in a fit. Entropies follow the labels.

        Args:
            seed: of the chance alone, at least 0.
        """
        names = [normalized(text) for text in self.texts] or list(map(str, range(len(self.labels))))
        type_of = np.unique(np.asarray(names, dtype=object), return_inverse=True)[1]
        label_of = np.zeros(int(type_of.max()) + 1, dtype=np.bool_)
        dealt = np.zeros_like(label_of)
        for place, part in enumerate((TRAIN, VALIDATION, TEST, UNUSED)):
            rows = self.parts == part
            new = type_of[rows & ~dealt[type_of]]
            if len(new):
                generator = np.random.default_rng([seed, place, *b"control"])
                left = int(self.labels[rows].sum()) - int(label_of[type_of[rows & dealt[type_of]]].sum())
                label_of[new] = _dealt(new, left, generator)
                dealt[new] = True
        shuffled = label_of[type_of]
        entropies = None if self.entropies is None else (~shuffled).astype(np.float64)
        return replace(self, labels=shuffled, entropies=entropies)


def _dealt(type_of: IntArray, positives: int, generator: np.random.Generator) -> BoolArray:
    """One label a type, by chance, so that as many examples are positive as types can make up: `bool[n]`."""
    kinds, sizes = np.unique(type_of, return_counts=True)
    chosen: list[int] = []
    left = positives
    for place in generator.permutation(len(kinds)):
        if sizes[place] <= left:
            chosen.append(int(kinds[place]))
            left -= int(sizes[place])
    dealt: BoolArray = np.isin(type_of, chosen)
    return dealt
