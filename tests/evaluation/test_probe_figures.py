"""Figures of a trained probe: what their legends say."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from probegrid.evaluation.figures import png
from probegrid.evaluation.intervals import Estimate
from probegrid.evaluation.probe_figures import (
    auroc_by_layer_figure,
    projection_figure,
    training_history_figure,
)

LAYERS = list(range(9))
AUROCS = [Estimate(0.5 + 0.05 * i, 0.45 + 0.05 * i, 0.55 + 0.05 * i, 2000) for i in LAYERS]
BASELINES = {"Text baseline": Estimate(0.55, 0.5, 0.6, 2000), "Control": Estimate(0.48, 0.42, 0.54, 2000)}


def _legend(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_auroc_by_layer_names_the_layer_and_the_baselines() -> None:
    figure = auroc_by_layer_figure(LAYERS, AUROCS, 6, BASELINES, title="tiny")
    legend = _legend(figure)
    assert "Layer 6, chosen on validation: 0.800 [0.750, 0.850]" in legend
    assert "Text baseline 0.550 [0.500, 0.600]" in legend
    assert "Control 0.480 [0.420, 0.540]" in legend
    assert png(figure) == png(auroc_by_layer_figure(LAYERS, AUROCS, 6, BASELINES, title="tiny"))


def test_one_layer_and_no_interval_can_be_drawn() -> None:
    lone = [Estimate(0.7, float("nan"), float("nan"), 0)]
    assert any(
        "0.700 (no interval)" in text
        for text in _legend(auroc_by_layer_figure([22], lone, 22, {}, title="t"))
    )


def test_history_marks_the_lowest_validation_loss() -> None:
    train, validation = np.array([0.6, 0.4, 0.3, np.nan]), np.array([0.6, 0.45, 0.5, np.nan])
    figure = training_history_figure(22, train, validation, title="tiny")
    assert "Lowest validation loss (0.4500, epoch 2)" in _legend(figure)
    assert figure.axes[0].get_ylabel() == "Mean loss at layer 22 (nats)"


def test_projection_names_classes_and_threshold() -> None:
    figure = projection_figure([True, False, True], [1.0, -1.0, 2.0], 0.25, title="tiny")
    assert _legend(figure) == ["False (1)", "True (2)", "Threshold (0.25)"]
