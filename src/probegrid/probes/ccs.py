"""CCS: what is true of a statement is false of its negation, found without labels (Burns et al. 2022, 2212.03827).

Knows pairs of a statement and its negation among those it learns from; labels give the sign alone, and the scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from probegrid.errors import DataError
from probegrid.probes.base import ActivationProbe, Kind
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from torch import Tensor

    from probegrid.probes.fitting.contrast import FittedContrast
    from probegrid.probes.fitting.features import Features

_FEWEST_PAIRS = 2


@dataclass
class CCS(ActivationProbe):
    """A direction along which statements and their negations are opposites; it learns from no label.

    Which end is true, and the scale of probabilities, are taken from the labels of the validation split. A statement is
    scored together with its negation where that is among the statements, else by itself. Each side is centred by the
    mean of the train split; the paper centres what it is tested on by its own.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.statements})
    restarts: int = number_field(10, least=1, most=10_000)
    """Beginnings, of which the one with the least loss is kept."""
    epochs: int = number_field(1000, least=1, most=10**6, below="trains nothing")
    """Steps of AdamW at 1e-3 on all pairs."""
    var_normalize: bool = False
    """Whether each side is also divided by its standard deviation."""

    def fit(self, features: Features) -> FittedContrast:
        """Fit on the pairs of the train split; the sign and the scale are of the validation split.

        Raises:
            DataError: the train split holds fewer than two statements with their negations.
        """
        import torch

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.contrast import Contrasts, FittedContrast, train_contrast

        texts = [text for text, part in zip(features.texts, features.parts, strict=True) if part == TRAIN]
        rows = Contrasts.of(texts).pairs
        if len(rows[0]) < _FEWEST_PAIRS:
            raise DataError(
                f"probe=ccs learns from statements beside their negations, and the train split's {len(texts)} "
                f"statements hold {len(rows[0])} such pair{'' if len(rows[0]) == 1 else 's'}; give both lists, as in "
                "\"dataset.path='cities.csv,neg_cities.csv'\"."
            )
        x = features.activations_of(TRAIN)
        sides = torch.stack([x[:, torch.from_numpy(side).to(x.device)] for side in rows], 1)  # [l, 2, p, d]
        means = sides.mean(2)
        spreads = self._spreads(sides)
        positive, negative = ((sides - means[:, :, None]) / spreads[:, :, None]).unbind(1)
        weights, biases = train_contrast(
            positive, negative, restarts=self.restarts, epochs=self.epochs, seed=self.seed
        )
        nothing = torch.zeros(len(x), dtype=torch.float64)
        note = (
            f"{len(rows[0])} pairs among {len(texts)} train statements were learned from, no label; which end is true "
            "is by the labels of the validation split"
        )
        fitted = FittedContrast(
            features.layers,
            nothing + 1,
            weights.cpu(),
            biases.double().cpu(),
            means.cpu(),
            spreads.cpu(),
            nothing,
            notes=(note,),
        )
        return _oriented(fitted, features)

    def _spreads(self, sides: Tensor) -> Tensor:
        """What each side [l, 2, p, d] is divided by: [l, 2, d]."""
        import torch

        if not self.var_normalize:
            return torch.ones_like(sides[:, :, 0])
        spreads = sides.std(2)
        return torch.where(spreads > 0, spreads, 1.0)


def _oriented(fitted: FittedContrast, features: Features) -> FittedContrast:
    """True turned up, and the scale of log-odds, by the labels of the validation split."""
    import numpy as np
    import torch

    from probegrid.evaluation.ranking import auroc
    from probegrid.evaluation.splits import VALIDATION
    from probegrid.probes.fitting.calibration import along

    labels = features.labels_of(VALIDATION)
    texts = [text for text, part in zip(features.texts, features.parts, strict=True) if part == VALIDATION]

    def raw(of: FittedContrast) -> Tensor:
        layers = features.activations_of(VALIDATION).double()
        return torch.stack([of.raw(row, layer, texts).cpu() for row, layer in enumerate(layers)])

    lower = [auroc(labels, values) < 1 / 2 for values in raw(fitted).numpy()]
    turned = fitted.turned(torch.from_numpy(np.array(lower)))
    shifts, scales = along(raw(turned), torch.from_numpy(labels))
    return replace(turned, shifts=shifts, scales=scales)
