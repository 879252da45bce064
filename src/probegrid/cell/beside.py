"""What stands beside a probe on activations: text baselines and a control on its own examples, and what they tell.

Knows divided examples, activations and evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from probegrid.cell.examples import Divided
from probegrid.evaluation.classification import layer_aurocs
from probegrid.evaluation.intervals import Estimate
from probegrid.probes import ActivationProbe
from probegrid.probes.text_baseline import TextBaseline, Unit
from probegrid.probes.training import TestSet, control_auroc, features_of, train

if TYPE_CHECKING:
    from torch import Tensor

_FAR = 0.1  # from one half, either way, is announced of a text baseline whose interval does not hold one half
_TEXTS = {"text_auroc": (Unit.words, "words"), "text_chars_auroc": (Unit.characters, "characters")}


def baselines(
    probe: ActivationProbe,
    divided: Divided,
    layers: tuple[int, ...],
    activations: Tensor,
    metrics: Mapping[str, float],
    *,
    seed: int,
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """What to beat, and by how much the probe does.

    Args:
        probe: what was fitted.
        divided: the examples and their splits.
        layers: the l layers, rising.
        activations: [n, l, d].
        metrics: the probe's own, ``auroc`` and its ends among them.
        seed: of the intervals.

    Returns:
        ``text_auroc``, ``text_chars_auroc``, ``control_auroc``, ``selectivity``; and what is to be said of them.
    """
    found = {name: _of_text(probe, divided, unit, seed=seed) for name, (unit, _) in _TEXTS.items()}
    notes = {
        name: f"the {_TEXTS[name][1]} of the texts alone tell true from false: what a probe finds may be no more"
        for name, one in found.items()
        if _is_far(one)
    }
    control = control_auroc(probe, divided.examples, layers, activations, divided.division)
    if (recurring := recurs(divided.examples.texts)) < 1:
        share = f"{recurring:.0%} of the texts recur" if recurring else "no text recurs"
        notes["control_auroc"] = f"{share}: only what recurs can be remembered"
    own = Estimate(metrics["auroc"], metrics["auroc_ci_low"], metrics["auroc_ci_high"], 0)
    return {**found, "control_auroc": control, "selectivity": difference(own, control)}, notes


def recurs(texts: tuple[str, ...]) -> float:
    """Share of the examples whose text is another's too."""
    _, place, counts = np.unique(np.asarray(texts, dtype=object), return_inverse=True, return_counts=True)
    return float((counts[place] > 1).mean()) if len(texts) else 0.0


def difference(first: Estimate, second: Estimate) -> Estimate:
    """First less second, of examples whose labels have nothing to do with each other: ends by Zou & Donner (2008)."""
    low = first.value - second.value - np.hypot(first.value - first.low, second.high - second.value)
    high = first.value - second.value + np.hypot(first.high - first.value, second.value - second.low)
    return Estimate(first.value - second.value, float(low), float(high), 0)


def _of_text(probe: ActivationProbe, divided: Divided, unit: Unit, *, seed: int) -> Estimate:
    """Test AUROC of a text baseline on all folds, pooled as the probe's."""
    examples, division = divided.examples, divided.division
    text = TextBaseline(split=probe.split, seed=probe.seed, unit=unit)
    tested = TestSet.of([train(text, features_of(examples, fold), fold) for fold in division.folds])
    labels, groups = examples.labels[tested.rows], divided.groups_of(tested.rows)
    return layer_aurocs(labels, tested.scores[:, np.newaxis], groups, seed=seed)[0]


def _is_far(estimate: Estimate) -> bool:
    is_outside = estimate.low > 0.5 or estimate.high < 0.5
    return is_outside and abs(estimate.value - 0.5) > _FAR
