"""Figures of a trained probe: AUROC by layer, training history, projection on the direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray
from probegrid.evaluation.figures import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    interval_text,
    new_figure,
    score_histogram_figure,
)
from probegrid.evaluation.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def auroc_by_layer_figure(
    layers: Sequence[int],
    aurocs: Sequence[Estimate],
    chosen: int,
    baselines: Mapping[str, Estimate],
    *,
    title: str,
) -> Figure:
    """Draw the test AUROC of each layer with its band, the layer that validation chose, and what to beat.

    Args:
        layers: the l layers, rising.
        aurocs: of each layer.
        chosen: the layer that was chosen, one of them.
        baselines: by name, at most three ("Text baseline", "Control"); a line across each.
        title: of the figure.
    """
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import blended_transform_factory

    figure, axes = new_figure(title, "Layer (blocks read; 0: embeddings)", "Test AUROC", below=0.65)
    values, low, high = (
        np.array([getattr(auroc, end) for auroc in aurocs]) for end in ("value", "low", "high")
    )
    picked = aurocs[list(layers).index(chosen)]
    axes.axhline(0.5, linestyle="--", color=GRAY, label="Chance (0.500)")
    styles = ((ORANGE, "-."), (GREEN, ":"), (GRAY, "-"))
    for (name, estimate), (color, style) in zip(baselines.items(), styles, strict=False):
        label = f"{name} {interval_text(estimate)}"
        axes.axhline(estimate.value, linestyle=style, linewidth=1.8, color=color, label=label)
    axes.fill_between(layers, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% interval, by layer")
    axes.plot(layers, values, color=BLUE, linewidth=2, marker="o", markersize=3.5)
    label = f"Layer {chosen}, chosen on validation: {interval_text(picked)}"
    axes.plot([chosen], [picked.value], "D", color=BLUE, markersize=9, label=label)
    bottom = min(0.45, float(np.nanmin([*low, *values, *(line.value for line in baselines.values())])) - 0.02)
    axes.set_ylim(max(0, bottom), 1.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    place = blended_transform_factory(figure.transFigure, axes.transAxes)  # as wide as the figure
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        bbox_transform=place,
        ncols=2,
        fontsize="small",
        frameon=False,
    )
    return figure


def training_history_figure(
    layer: int, train_loss: FloatArray, val_loss: FloatArray, *, title: str
) -> Figure:
    """Draw the losses of one layer by epoch, and mark the lowest validation loss.

    Args:
        layer: whose losses they are.
        train_loss: `float64[epochs]`, in nats; `nan` after an early stop.
        val_loss: `float64[epochs]`, likewise; at least one is not `nan`.
        title: of the figure.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(title, "Epoch", f"Mean loss at layer {layer} (nats)")
    epochs = np.arange(1, len(train_loss) + 1)
    axes.plot(epochs, train_loss, color=BLUE, linewidth=2, marker="o", markersize=4, label="Train")
    axes.plot(epochs, val_loss, color=ORANGE, linewidth=2, marker="o", markersize=4, label="Validation")
    best = int(np.nanargmin(val_loss))
    label = f"Lowest validation loss ({val_loss[best]:.4f}, epoch {best + 1})"
    axes.plot([best + 1], [val_loss[best]], "D", color=ORANGE, markersize=9, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
    return figure


def projection_figure(labels: ArrayLike, scores: ArrayLike, threshold: float, *, title: str) -> Figure:
    """Draw where true and false test examples lie along the direction, and the threshold between them.

    Args:
        labels: `bool[n]`.
        scores: `float[n]`, finite: projections on the unit direction plus the bias.
        threshold: a score above it is called true.
        title: of the figure.

    Raises:
        ValueError: as `score_histogram_figure`.
    """
    figure = score_histogram_figure(
        labels,
        scores,
        title=title,
        classes=("False", "True"),
        score_name="Projection on the direction, plus bias (units of the activations)",
    )
    axes = figure.axes[0]
    axes.axvline(threshold, linestyle="--", color=GRAY, label=f"Threshold ({threshold:.3g})")
    axes.legend(loc="best")
    return figure
