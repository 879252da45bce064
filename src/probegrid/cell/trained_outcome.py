"""What a trained probe leaves behind: fit, numbers, pictures and the saved probe.

Knows divided examples, activations and evaluation. Every number is of the test split. What stands beside a probe on
activations is `beside`'s, what other splits show `resplit`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probegrid.cell.beside import baselines
from probegrid.cell.examples import Divided
from probegrid.cell.outcome import Outcome
from probegrid.cell.resplit import CALIBRATORS, calibrated_numbers, of_folds, of_repeats
from probegrid.evaluation.classification import evaluate_classification, layer_aurocs
from probegrid.evaluation.figures import (
    image_files,
    reliability_figure,
    roc_figure,
    score_histogram_figure,
)
from probegrid.evaluation.probe_figures import (
    auroc_by_layer_figure,
    projection_figure,
    training_history_figure,
)
from probegrid.evaluation.summary import SMALL_SAMPLES, Summary, flat
from probegrid.probes import ActivationProbe, TrainedProbe
from probegrid.probes.fitting.fitted import FittedByLayer, FittedProbe
from probegrid.probes.fitting.joined import FittedJoined
from probegrid.probes.saved import SavedProbe
from probegrid.probes.training import (
    TestSet,
    Trained,
    features_of,
    layer_course,
    train,
    validation_auroc,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure
    from torch import Tensor

    from probegrid.evaluation.intervals import Estimate


@dataclass(frozen=True)
class Read:
    """The hidden states of the examples.

    Attributes:
        layers: the l layers, rising.
        activations: [n, l, d] of any float type, on the device to compute on.
        position: where they were read.
        model: what identifies the model that was read.
    """

    layers: tuple[int, ...] = ()
    activations: Tensor | None = None
    position: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)


def trained_outcome(
    probe: TrainedProbe, divided: Divided, read: Read, leaks: Sequence[str], *, seed: int
) -> Outcome:
    """Train and test a probe; beside one on activations stand a text baseline and a control.

    Args:
        probe: what is fitted.
        divided: n examples and their splits.
        read: the hidden states of the examples, if the probe needs them.
        leaks: why the labels could be read off the text, if they could.
        seed: of the intervals.
    """
    folds = [
        train(probe, features_of(divided.examples, fold, read.layers, read.activations), fold)
        for fold in divided.division.folds
    ]
    tested, summary = _evaluate(divided, folds, seed=seed)
    tables = {"scores": _scores_table(divided, folds, tested)}
    numbers = summary.metrics | calibrated_numbers(folds, tested, divided, seed=seed)
    if len(folds) > 1:
        found, table = of_folds(folds, divided, seed=seed)
        numbers, tables = numbers | found, tables | {"folds": table}
    if probe.repeats > 1:
        found, table = of_repeats(probe, divided, read.layers, read.activations, tested)
        numbers, tables = numbers | found, tables | {"repeats": table}
    if isinstance(probe, ActivationProbe) and read.layers and not _are_joined(folds):
        tables["layer_scores"] = _layer_scores_table(divided, folds, read.layers)
    outcome = Outcome(
        metrics=numbers,
        notes={
            **summary.notes,
            **_of_calibrated(summary.notes),
            **_leaks([*divided.division.notes, *leaks]),
            **_of_fit(folds),
        },
        tables=tables,
        figures=image_files(_test_figures(divided, tested, summary)),
    )
    if isinstance(probe, ActivationProbe) and read.activations is not None:
        return _on_layers(outcome, probe, divided, read, folds, tested, seed=seed)
    return outcome


def _evaluate(divided: Divided, folds: Sequence[Trained], *, seed: int) -> tuple[TestSet, Summary]:
    """All numbers of the test examples, each with its interval."""
    tested, examples = TestSet.of(folds), divided.examples
    summary = evaluate_classification(
        examples.labels[tested.rows],
        tested.scores,
        tested.probabilities,
        divided.groups_of(tested.rows),
        [examples.conversations[row] for row in tested.rows],
        tested.threshold,
        seed=seed,
        of_answers=not examples.are_statements,
    )
    return tested, summary


def _scores_table(divided: Divided, folds: Sequence[Trained], tested: TestSet) -> pa.Table:
    """``scores.parquet``: a row an example; of several folds, each example as the fold that tests it, on one scale."""
    import pyarrow as pa

    scores, parts = folds[0].scores.copy(), folds[0].fold.parts.astype(object)
    for trained in folds:
        rows = trained.test_rows
        parts[rows] = trained.fold.parts[rows]
    scores[tested.rows] = tested.scores
    return pa.table(
        {
            "example_id": pa.array(divided.examples.ids, pa.string()),
            "group": pa.array(divided.groups_of(range(len(scores))), pa.string()),
            "split": pa.array(list(parts), pa.string()),
            "label": pa.array(divided.examples.labels, pa.bool_()),
            "score": pa.array(scores, pa.float64()),
        }
    )


def _layer_scores_table(divided: Divided, folds: Sequence[Trained], layers: Sequence[int]) -> pa.Table:
    """``layer_scores.parquet``: the log-odds of true of each example by each layer, ``layer_<number>``.

    Of several folds the scores of an example are of the fold that tests it, beyond that fold's thresholds; null where
    none does, and where a probe does not score layer by layer.
    """
    import pyarrow as pa

    scores = np.full((len(divided.examples.ids), len(layers)), np.nan)
    if folds[0].by_column.shape[1] == len(layers):
        if len(folds) == 1:
            scores = folds[0].by_column * np.asarray(folds[0].fitted.scales)
        else:
            for trained in folds:
                scores[trained.test_rows] = trained.beyond_thresholds()
    columns = {
        f"layer_{layer}": pa.array(scores[:, place], pa.float64(), from_pandas=True)
        for place, layer in enumerate(layers)
    }
    return pa.table({"example_id": pa.array(divided.examples.ids, pa.string()), **columns})


def _on_layers(
    outcome: Outcome,
    probe: ActivationProbe,
    divided: Divided,
    read: Read,
    folds: Sequence[Trained],
    tested: TestSet,
    *,
    seed: int,
) -> Outcome:
    """What stands beside a probe on activations: the course over the layers, the baselines, the probe to keep."""
    examples, is_joined = divided.examples, _are_joined(folds)
    assert read.activations is not None
    beside, beside_notes = baselines(
        probe, divided, read.layers, read.activations, outcome.metrics, seed=seed
    )
    best = max(folds, key=lambda trained: validation_auroc(trained, examples.labels))
    layer = read.layers[-1] if is_joined else read.layers[best.column]
    chosen = {"joined_layers": len(read.layers)} if is_joined else {"layer": layer}
    metrics = {**outcome.metrics, **flat(beside), **chosen, "threshold": tested.threshold}
    metrics |= flat(_of_target(probe, divided, read, folds, seed=seed))
    told = f"{len(read.layers)} layers joined" if is_joined else f"layer {layer}"
    figures = {
        "projection": projection_figure(
            examples.labels[tested.rows], tested.scores, tested.threshold, title=f"Test examples, {told}"
        ),
        **_history_figure(best, layer),
    }
    steps = _losses(best)
    if not is_joined:
        course = layer_course(folds, examples, divided.division, seed=seed)
        steps["layer_auroc"] = [(at, area.value) for at, area in zip(read.layers, course, strict=True)]
        figures["auroc_by_layer"] = auroc_by_layer_figure(
            read.layers,
            course,
            layer,
            {"text baseline": beside["text_auroc"], "control": beside["control_auroc"]},
            title="AUROC by layer",
        )
    return Outcome(
        metrics=metrics,
        notes={**outcome.notes, **_of_beside(outcome.notes, beside), **beside_notes},
        tables=outcome.tables,
        figures={**outcome.figures, **image_files(figures)},
        steps=steps,
        files=_saved(probe, best, layer, read, metrics),
    )


def _are_joined(folds: Sequence[Trained]) -> bool:
    """Whether one probe reads all layers at once."""
    return isinstance(folds[0].fitted, FittedJoined)


def _of_target(
    probe: ActivationProbe, divided: Divided, read: Read, folds: Sequence[Trained], *, seed: int
) -> dict[str, Estimate]:
    """How well a probe that learns something else than the labels tells that, on the test examples."""
    targets = [
        probe.target(features_of(divided.examples, trained.fold, read.layers, read.activations))
        for trained in folds
    ]
    if any(target is None for target in targets):
        return {}
    tested = TestSet.of(folds)
    truth = np.concatenate(
        [
            target[trained.test_rows]
            for target, trained in zip(targets, folds, strict=True)
            if target is not None
        ]
    )
    groups = divided.groups_of(tested.rows)
    return {"target_auroc": layer_aurocs(truth, tested.scores[:, np.newaxis], groups, seed=seed)[0]}


def _saved(
    probe: ActivationProbe, best: Trained, layer: int, read: Read, metrics: Mapping[str, float]
) -> dict[str, bytes]:
    """The files of a probe that scores new text, where it is one that can be saved."""
    is_joined = isinstance(best.fitted, FittedJoined)
    fitted = best.fitted.inner if isinstance(best.fitted, FittedJoined) else best.fitted
    if not isinstance(fitted, FittedByLayer):
        return {}
    saved = SavedProbe(
        probe=type(probe).declared_name(),
        fitted=fitted,
        layer=layer,
        threshold=best.threshold,
        positions=read.position,
        model=read.model,
        metrics=metrics,
        joined=read.layers if is_joined else (),
    )
    return saved.to_files()


def _of_calibrated(notes: Mapping[str, str]) -> dict[str, str]:
    """What is said of an ECE and a Brier score, of those that validation calibrates: they are of the same examples."""
    names = [(name, f"{name}_{kind}") for name in ("ece", "brier") for kind in CALIBRATORS]
    return {calibrated: notes[name] for name, calibrated in names if name in notes}


def _of_beside(notes: Mapping[str, str], beside: Mapping[str, Estimate]) -> dict[str, str]:
    """How few stand behind an AUROC, of those beside it."""
    few = notes.get("auroc", "").partition("; ")[0]  # not that its own scores are equal
    return dict.fromkeys(beside, few) if SMALL_SAMPLES in few else {}


def _leaks(notes: Sequence[str]) -> dict[str, str]:
    """What makes the numbers too good; and what to know of the split besides."""
    of_split = [note.removeprefix("split: ") for note in notes if note.startswith("split: ")]
    leaks = [note for note in notes if not note.startswith("split: ")]
    return ({"leakage": "; ".join(leaks)} if leaks else {}) | (
        {"split": "; ".join(of_split)} if of_split else {}
    )


def _of_fit(folds: Sequence[Trained]) -> dict[str, str]:
    """What is to be known of how the probe was fitted; of several folds, of the first."""
    notes = getattr(folds[0].fitted, "notes", ())
    return {"probe": "; ".join(notes)} if notes else {}


def _losses(trained: Trained) -> dict[str, list[tuple[int, float]]]:
    """Train and validation loss of the chosen layer by epoch, where it was trained by gradient descent."""
    history = trained.fitted.history if isinstance(trained.fitted, FittedProbe) else None
    if history is None:
        return {}
    column = trained.column
    return {
        name: [(epoch, float(loss)) for epoch, loss in enumerate(losses[:, column], 1) if not np.isnan(loss)]
        for name, losses in (("train_loss", history.train_loss), ("val_loss", history.val_loss))
    }


def _test_figures(divided: Divided, tested: TestSet, summary: Summary) -> dict[str, Figure]:
    labels, estimates = divided.examples.labels[tested.rows], summary.estimates
    return {
        "roc": roc_figure(labels, tested.scores, estimates["auroc"], title="True against false, test split"),
        "reliability": reliability_figure(
            labels, tested.probabilities, estimates["ece"], title="Reliability, test split"
        ),
        "scores": score_histogram_figure(
            labels, tested.probabilities, title="Probability of true, test split"
        ),
    }


def _history_figure(trained: Trained, layer: int) -> dict[str, Figure]:
    history = trained.fitted.history if isinstance(trained.fitted, FittedProbe) else None
    if history is None:
        return {}
    losses = history.train_loss[:, trained.column], history.val_loss[:, trained.column]
    return {"training_history": training_history_figure(layer, *losses, title="Training")}
