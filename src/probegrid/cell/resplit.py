"""What other splits of the same activations show: numbers a fold, a source, a repeat; and probabilities by validation.

Knows divided examples and evaluation. One split's interval says what other test examples would give; how much the
division itself matters (which examples the probe learned from) is seen by dividing again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probegrid.cell.examples import Divided
from probegrid.evaluation.classification import layer_aurocs
from probegrid.evaluation.miscalibration import miscalibration
from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.summary import flat, mean_estimate
from probegrid.probes import TrainedProbe
from probegrid.probes.training import TestSet, Trained, features_of, train

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

CALIBRATORS = ("platt", "isotonic")
"""By which validation calibrates probabilities, in the names of what is measured of them."""
_DRAWINGS = 500


def calibrated_numbers(
    folds: Sequence[Trained], tested: TestSet, divided: Divided, *, seed: int
) -> dict[str, float]:
    """ECE and Brier score, with their intervals, of probabilities that each fold's validation calibrates."""
    labels, groups = divided.examples.labels[tested.rows], divided.groups_of(tested.rows)
    numbers: dict[str, float] = {}
    for kind in CALIBRATORS:
        stated = np.clip(np.concatenate([trained.calibrated(kind) for trained in folds]), 0, 1)
        found = miscalibration(labels, stated, groups, seed=seed, resamples=_DRAWINGS)
        brier = mean_estimate((stated - labels) ** 2, groups, is_share=True)
        numbers |= {
            f"ece_{kind}": found.ece,
            f"ece_{kind}_ci_low": found.low,
            f"ece_{kind}_ci_high": found.high,
            **flat({f"brier_{kind}": brier}),
        }
    return numbers


def of_folds(folds: Sequence[Trained], divided: Divided, *, seed: int) -> tuple[dict[str, float], pa.Table]:
    """Numbers of each fold's test examples alone, by source where folds are sources, and how they vary.

    Returns:
        ``source_auroc_<source>`` with its interval, a source each, and ``auroc_fold_mean`` and ``auroc_fold_sd``; and
        ``folds.parquet``, a row a fold.
    """
    import pyarrow as pa

    numbers: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    areas: list[float] = []
    for number, trained in enumerate(folds):
        at = trained.test_rows
        labels, scores = divided.examples.labels[at], trained.scores[at]
        area = layer_aurocs(labels, scores[:, np.newaxis], divided.groups_of(at), seed=seed)[0]
        right = mean_estimate((scores > trained.threshold) == labels, divided.groups_of(at), is_share=True)
        found = flat({"auroc": area, "accuracy": right})
        rows.append({"fold": number, "source": trained.fold.source, "n": len(at), **found})
        areas.append(area.value)
        if trained.fold.source:
            numbers |= flat({f"source_auroc_{trained.fold.source}": area})
    return numbers | _spread("fold", areas), pa.Table.from_pylist(rows)


def of_repeats(
    probe: TrainedProbe,
    divided: Divided,
    layers: tuple[int, ...],
    activations: Tensor | None,
    first: TestSet,
) -> tuple[dict[str, float], pa.Table]:
    """AUROC and accuracy of the probe on divisions by further seeds, the first with them.

    Returns:
        Mean and standard deviation over the divisions; and ``repeats.parquet``, a row a division.
    """
    import pyarrow as pa

    examples = divided.examples
    tests = [first]
    for repeat in range(1, probe.repeats):
        again = Divided.of(examples, probe, repeat=repeat)
        tests.append(
            TestSet.of(
                [
                    train(probe, features_of(examples, fold, layers, activations), fold)
                    for fold in again.division.folds
                ]
            )
        )
    rows = [
        {
            "repeat": number,
            "n": len(tested.rows),
            "auroc": auroc(examples.labels[tested.rows], tested.scores),
            "accuracy": float(np.mean((tested.scores > tested.threshold) == examples.labels[tested.rows])),
        }
        for number, tested in enumerate(tests)
    ]
    numbers = _spread("repeat", [row["auroc"] for row in rows])
    accuracy = np.array([row["accuracy"] for row in rows])
    numbers |= {
        "accuracy_repeat_mean": float(accuracy.mean()),
        "accuracy_repeat_sd": float(accuracy.std(ddof=1)),
    }
    return numbers, pa.Table.from_pylist(rows)


def _spread(over: str, areas: Sequence[float]) -> dict[str, float]:
    held = np.array([area for area in areas if not np.isnan(area)])
    sd = float(held.std(ddof=1)) if len(held) > 1 else float("nan")
    return {f"auroc_{over}_mean": float(held.mean()) if len(held) else float("nan"), f"auroc_{over}_sd": sd}
