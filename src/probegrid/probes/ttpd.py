"""TTPD: truth apart from polarity (Bürger, Hamprecht & Nadler 2024, arXiv 2407.12831).

Knows which lists hold negated statements: those whose names begin with ``neg_``, as in their data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.probes.base import ActivationProbe

if TYPE_CHECKING:
    from torch import Tensor

    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe

_NEGATED = "neg_"
_WEAK = 1e4  # C of what they fit without a penalty, which has no optimum where classes are separable


@dataclass
class TTPD(ActivationProbe):
    """Logistic regression on two projections: on the general direction of truth, and on that of polarity.

    Without negated statements the first alone is left. What they fit without a penalty has one next to nothing.
    """

    def fit(self, features: Features) -> FittedProbe:
        """Fit on the train split; nothing is chosen."""
        import numpy as np
        import torch

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.fitted import FittedProbe

        train = np.flatnonzero(features.parts == TRAIN)
        sources = [features.sources[row] for row in train] if features.sources else [""] * len(train)
        negated = torch.tensor([name.startswith(_NEGATED) for name in sources])
        known = bool(negated.any()) and not bool(negated.all())
        x, labels = features.activations_of(TRAIN), torch.from_numpy(features.labels_of(TRAIN))
        found = [_layer(layer, labels, negated if known else None, sources) for layer in x]
        weights, biases = (torch.stack([each[place] for each in found]) for place in (0, 1))
        return FittedProbe.of_weights(features.layers, weights, biases)


def _layer(x: Tensor, labels: Tensor, negated: Tensor | None, sources: list[str]) -> tuple[Tensor, Tensor]:
    """Weights float64[d] and bias float64 of one layer of activations float32[n, d]."""
    import torch

    from probegrid.probes.fitting.newton import fit_logistic
    from probegrid.probes.fitting.principal import truth_directions
    from probegrid.probes.fitting.standardization import Standardization

    wide = x.double()
    polarities = wide.new_zeros(len(x)) if negated is None else 1 - 2 * negated.to(wide)
    directions = [truth_directions(wide, labels.to(x.device), polarities, sources)[0]]
    if negated is not None:
        standard = Standardization.of(x[None])
        weights, biases = fit_logistic(standard.apply(x[None]), ~negated, [_WEAK])
        directions.append(standard.fold(weights[:, 0], biases[:, 0])[0][0].to(wide))
    both = torch.stack(directions)
    projected = (wide @ both.T)[None]
    standard = Standardization.of(projected)
    weights, biases = fit_logistic(standard.apply(projected).float(), labels, [_WEAK])
    slopes, biases = standard.fold(weights[:, 0], biases[:, 0])
    return (slopes[0].to(wide) @ both).cpu(), biases[0].cpu()
