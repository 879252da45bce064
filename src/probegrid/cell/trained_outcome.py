"""What a trained probe leaves behind: division, fit, numbers, pictures and the saved probe.

Knows examples, activations, divisions and evaluation. Every number is of the test split. Beside an activation probe
stand, on the same split, a text baseline and a control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probegrid.cell.outcome import Outcome
from probegrid.evaluation.classification import evaluate_classification
from probegrid.evaluation.figures import png, reliability_figure, roc_figure, score_histogram_figure
from probegrid.evaluation.probe_figures import (
    auroc_by_layer_figure,
    projection_figure,
    training_history_figure,
)
from probegrid.evaluation.splits import Division, divide
from probegrid.probes.saved import SavedProbe
from probegrid.probes.text_baseline import TextBaseline
from probegrid.probes.training import (
    Examples,
    TestSet,
    Trained,
    TrainedOnLayers,
    control_auroc,
    layer_course,
    train_on_layers,
    train_on_text,
    validation_auroc,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure
    from torch import Tensor

    from probegrid.evaluation.intervals import Estimate
    from probegrid.evaluation.summary import Summary
    from probegrid.probes import ActivationProbe, TrainedProbe


@dataclass(frozen=True)
class Divided:
    """Examples and how the probe divides them."""

    examples: Examples
    division: Division

    @classmethod
    def of(cls, examples: Examples, probe: TrainedProbe) -> Divided:
        """Divide as the probe asks.

        Raises:
            DataError: a split lacks a class, or there is a single source to leave out.
        """
        division = divide(
            probe.split,
            examples.labels,
            examples.conversations,
            examples.texts,
            examples.sources,
            seed=probe.seed,
        )
        return cls(examples, division)

    def groups_of(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
        """The group of each of these examples."""
        return [str(self.division.groups[row]) for row in rows]

    def evaluate(self, folds: Sequence[Trained], *, seed: int) -> tuple[TestSet, Summary]:
        """All numbers of the test examples, each with its interval."""
        tested = TestSet.of(folds)
        summary = evaluate_classification(
            self.examples.labels[tested.rows],
            tested.scores,
            tested.probabilities,
            self.groups_of(tested.rows),
            [self.examples.conversations[row] for row in tested.rows],
            tested.threshold,
            seed=seed,
        )
        return tested, summary

    def scores_table(self, folds: Sequence[Trained]) -> pa.Table:
        """``scores.parquet``: a row an example; of several folds, each example as the fold that tests it scored it."""
        import pyarrow as pa

        scores, parts = folds[0].scores.copy(), folds[0].fold.parts.astype(object)
        for trained in folds:
            rows = trained.test_rows
            scores[rows], parts[rows] = trained.scores[rows], trained.fold.parts[rows]
        return pa.table(
            {
                "example_id": pa.array(self.examples.ids, pa.string()),
                "group": pa.array(self.groups_of(range(len(scores))), pa.string()),
                "split": pa.array(list(parts), pa.string()),
                "label": pa.array(self.examples.labels, pa.bool_()),
                "score": pa.array(scores, pa.float64()),
            }
        )


def text_outcome(probe: TextBaseline, examples: Examples, leaks: Sequence[str], *, seed: int) -> Outcome:
    """Train and test the text baseline, which reads no model."""
    divided = Divided.of(examples, probe)
    folds = [train_on_text(probe, examples, fold) for fold in divided.division.folds]
    tested, summary = divided.evaluate(folds, seed=seed)
    return Outcome(
        metrics=summary.metrics,
        notes=dict(summary.notes) | _leaks([*divided.division.notes, *leaks]),
        tables={"scores": divided.scores_table(folds)},
        figures={name: png(figure) for name, figure in _test_figures(divided, tested, summary).items()},
    )


def activation_outcome(
    probe: ActivationProbe,
    divided: Divided,
    layers: tuple[int, ...],
    activations: Tensor,
    leaks: Sequence[str],
    *,
    model: Mapping[str, Any],
    seed: int,
) -> Outcome:
    """Train and test a probe on every layer, beside a text baseline and a control.

    Args:
        probe: what is fitted.
        divided: n examples and their splits.
        layers: the l layers, rising.
        activations: [n, l, d] of any float type, on the device to compute on.
        leaks: why the labels could be read off the text, if they could.
        model: what identifies the model that was read, for the saved probe.
        seed: of the intervals.
    """
    examples = divided.examples
    folds = [train_on_layers(probe, examples, fold, layers, activations) for fold in divided.division.folds]
    tested, summary = divided.evaluate(folds, seed=seed)
    course = layer_course(folds, examples, divided.division, seed=seed)
    beside = _beside(probe, divided, layers, activations, seed=seed)
    best = max(folds, key=lambda trained: validation_auroc(trained, examples.labels))
    metrics = summary.metrics | _flat(beside)
    metrics["selectivity"] = metrics["auroc"] - beside["control_auroc"].value
    metrics |= {"layer": best.layer, "threshold": best.threshold}
    saved = SavedProbe(
        probe=type(probe).__name__,
        fitted=best.fitted,
        layer=best.layer,
        threshold=best.threshold,
        positions=probe.positions,
        model=model,
        metrics=metrics,
    )
    figures = _test_figures(divided, tested, summary)
    figures["projection"] = projection_figure(
        examples.labels[tested.rows],
        tested.scores,
        tested.threshold,
        title=f"Test examples, layer {best.layer}",
    )
    figures["auroc_by_layer"] = auroc_by_layer_figure(
        layers, course, best.layer, {"text baseline": beside["text_auroc"], "control": beside["control_auroc"]},
        title="AUROC by layer",
    )  # fmt: skip
    return Outcome(
        metrics=metrics,
        notes=dict(summary.notes) | _leaks([*divided.division.notes, *leaks]),
        tables={"scores": divided.scores_table(folds)},
        figures={name: png(figure) for name, figure in (figures | _history_figure(best)).items()},
        steps={"layer_auroc": [(layer, area.value) for layer, area in zip(layers, course, strict=True)]}
        | _losses(best),
        files=saved.to_files(),
    )


def _beside(
    probe: ActivationProbe, divided: Divided, layers: tuple[int, ...], activations: Tensor, *, seed: int
) -> dict[str, Estimate]:
    """What to beat: the text baseline on all folds, the control on the first."""
    examples, folds = divided.examples, divided.division.folds
    text = TextBaseline(split=probe.split, seed=probe.seed)
    _, words = divided.evaluate([train_on_text(text, examples, fold) for fold in folds], seed=seed)
    return {
        "text_auroc": words.estimates["auroc"],
        "control_auroc": control_auroc(probe, examples, folds[0], layers, activations),
    }


def _flat(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, estimate in estimates.items():
        flat |= {name: estimate.value, f"{name}_ci_low": estimate.low, f"{name}_ci_high": estimate.high}
    return flat


def _leaks(notes: Sequence[str]) -> dict[str, str]:
    """What makes the numbers too good, as a note on the metric that suffers most."""
    return {"leakage": "; ".join(notes)} if notes else {}


def _losses(trained: TrainedOnLayers) -> dict[str, list[tuple[int, float]]]:
    """Train and validation loss of the chosen layer by epoch, where it was trained by gradient descent."""
    history = trained.fitted.history
    if history is None:
        return {}
    column = trained.fitted.layers.index(trained.layer)
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


def _history_figure(trained: TrainedOnLayers) -> dict[str, Figure]:
    history = trained.fitted.history
    if history is None:
        return {}
    column = trained.fitted.layers.index(trained.layer)
    losses = history.train_loss[:, column], history.val_loss[:, column]
    return {"training_history": training_history_figure(trained.layer, *losses, title="Training")}
