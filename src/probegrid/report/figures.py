"""The figures of a report, each over many cells.

Knows cells and evaluation's curves. A figure is made only where there is something to draw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from probegrid.evaluation.calibration import Calibration, ece
from probegrid.evaluation.checks import FloatArray
from probegrid.evaluation.figures import (
    FIRST_COVERAGE_IN_VIEW,
    GRAY,
    interval_text,
    new_panels,
    png,
)
from probegrid.evaluation.ranking import risk_coverage_curve, roc_curve
from probegrid.report.cells import RecordedCell
from probegrid.report.cost_figures import COST_FIGURES, cost_figures
from probegrid.report.panels import Panel, Series, only, panels
from probegrid.report.seeds import over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Axes, Series], None]

_TRADED: dict[str, tuple[str, str, Callable[[RecordedCell], bool]]] = {
    "accuracy": ("accuracy", "Accuracy of answers", lambda cell: not cell.is_trained),
    "probe_accuracy": ("accuracy", "Accuracy of the probe's calls", lambda cell: cell.is_trained),
    "auroc": ("auroc", "AUROC", lambda _: True),
}
"""By figure: the metric, its axis, and the cells that have it."""
_ROUNDING = 1e-9
_FEWEST_POINTS = 2
_FEW_HOURS = 0.1
MOST_PANELS = 24
"""A figure of more panels is not drawn."""
MOST_BARS = 120
"""A figure of more bars is not drawn."""


@dataclass(frozen=True)
class Figures:
    """PNG images by name, and the names of those that would have too much on them to be read."""

    images: dict[str, bytes] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def draw(
        self, name: str, divided: Sequence[Panel], figure_of: Callable[[Sequence[Panel]], Figure]
    ) -> None:
        """Add a figure of panels, if there are any and not too many."""
        if len(divided) > MOST_PANELS:
            self.left_out.append(name)
        elif divided:
            self.images[name] = png(figure_of(divided))


def draw_figures(cells: Sequence[RecordedCell]) -> Figures:
    """Every figure that these cells give; of cells that differ in seeds alone, means, and the curves of the first.

    Args:
        cells: those that ended well; none give no figure.
    """
    figures = Figures()
    if not cells:
        return figures
    together = over_seeds(cells)
    merged = [one.merged for one in together]
    _draw_by_size(figures, merged)
    _draw_by_hours(figures, merged)
    cells = [one.cells[0] for one in together]  # a curve is of one cell; means have none
    divided = panels(cells)
    figures.draw("roc", only(divided, _has_roc), _roc)
    figures.draw("risk_coverage", only(divided, _has_risk), _risk_coverage)
    figures.draw("reliability", only(divided, lambda cell: probabilities(cell) is not None), _reliability)
    by_layer = only(divided, lambda cell: "layer_auroc" in cell.record.steps)
    figures.draw("auroc_by_layer", by_layer, _auroc_by_layer)
    if len(cells) <= MOST_BARS:
        figures.images.update({name: png(figure) for name, figure in cost_figures(cells).items()})
    else:
        figures.left_out.extend(COST_FIGURES)
    return figures


def _has_roc(cell: RecordedCell) -> bool:
    return cell.has_one_scale and not math.isnan(cell.record.metrics["auroc"])


def _has_risk(cell: RecordedCell) -> bool:
    return cell.has_one_scale and not cell.is_trained


def probabilities(cell: RecordedCell) -> FloatArray | None:
    """The score of each test example as a probability, `float64[n]`; None where scores are none, or do not give it.

    A trained probe's scores are log-odds or in proportion to them; what is returned has the ECE that the cell
    recorded.
    """
    recorded = cell.metric("ece")
    if recorded is None or np.isnan(recorded):
        return None
    for found in (cell.values, _from_log_odds(cell)):
        is_possible = ((found >= 0) & (found <= 1)).all()
        if is_possible and abs(ece(cell.labels, found) - recorded) < _ROUNDING:
            return found
    return None


def _from_log_odds(cell: RecordedCell) -> FloatArray:
    from safetensors.numpy import load_file
    from scipy.special import expit

    file, scale = cell.folder / "probe.safetensors", 1.0
    if file.exists():
        layers = json.loads((cell.folder / "probe.json").read_text())["layers"]
        scale = float(load_file(file)["scale"][layers.index(int(cell.record.metrics["layer"]))])
    return np.asarray(expit(scale * cell.values), dtype=np.float64)


def _draw_by_size(figures: Figures, cells: Sequence[RecordedCell]) -> None:
    """Accuracy and AUROC against parameters, where models differ in size."""
    sized = [cell for cell in cells if cell.parameters]
    _draw_traded(figures, sized, "parameters", "Parameters", lambda cell: cell.parameters)


def _draw_by_hours(figures: Figures, cells: Sequence[RecordedCell]) -> None:
    """Accuracy and AUROC against the measured hours of the devices (seconds where they are few)."""
    hours = {cell.record.cell: cell.reading_hours for cell in cells if cell.reading_hours}
    timed = [cell for cell in cells if cell.record.cell in hours]
    if not timed:
        return
    device, name = ("GPU", "gpu_hours") if all(cell.gpus for cell in timed) else ("Device", "device_hours")
    unit, factor = ("hours", 1) if max(hours.values()) > _FEW_HOURS else ("seconds", 3600)
    x_label = f"{device}-{unit}, reading"
    _draw_traded(figures, timed, name, x_label, lambda cell: factor * hours[cell.record.cell])


def _draw_traded(
    figures: Figures,
    cells: Sequence[RecordedCell],
    name: str,
    x_label: str,
    x_of: Callable[[RecordedCell], float | None],
) -> None:
    """A figure a metric, over one and the same axis; none where all cells that have the metric stand at one place."""
    for figure, (metric, title, has) in _TRADED.items():
        kept = [cell for cell in cells if has(cell)]
        if len({x_of(cell) for cell in kept}) >= _FEWEST_POINTS:
            drawn = partial(_scatter, metric=metric, title=title, x_label=x_label, x_of=x_of)
            figures.draw(f"{figure}_by_{name}", panels(kept, along="model"), drawn)


def _scatter(
    divided: Sequence[Panel],
    *,
    metric: str,
    title: str,
    x_label: str,
    x_of: Callable[[RecordedCell], float | None],
) -> Figure:
    """Each cell with its interval over a logarithmic axis; the models of a series are joined by a line."""

    def draw(axes: Axes, series: Series) -> None:
        rising = sorted(series.cells, key=lambda cell: x_of(cell) or 0)
        points = [(x_of(cell), cell.estimate(metric)) for cell in rising]
        found = [(x, one) for x, one in points if x and one is not None and not np.isnan(one.value)]
        if not found:
            return
        xs, values = [x for x, _ in found], np.array([one.value for _, one in found])
        ends = np.array([[one.value - one.low, one.high - one.value] for _, one in found]).T
        axes.errorbar(
            xs, values, np.nan_to_num(ends), color=series.color, marker="o", markersize=5, capsize=3, linewidth=1.3,
            label=series.name or title,
        )  # fmt: skip

    figure = _overlaid(divided, x_label, title, draw, lambda _: None)
    for axes in figure.axes:
        axes.set_xscale("log")
    return figure


def _roc(divided: Sequence[Panel]) -> Figure:
    def draw(axes: Axes, series: Series) -> None:
        (cell,) = series.cells
        axes.plot(
            *roc_curve(cell.labels, cell.values),
            color=series.color,
            linewidth=1.6,
            label=_legend(series, "auroc"),
        )

    def frame(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color=GRAY, linewidth=1)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))

    return _overlaid(divided, "False positive rate", "True positive rate", draw, frame)


def _risk_coverage(divided: Sequence[Panel]) -> Figure:
    def draw(axes: Axes, series: Series) -> None:
        (cell,) = series.cells
        coverage, risk = risk_coverage_curve(cell.labels, cell.values)
        in_view = coverage >= FIRST_COVERAGE_IN_VIEW
        axes.plot(
            coverage[in_view], risk[in_view], color=series.color, linewidth=1.6, label=_legend(series, "aurc")
        )

    def frame(axes: Axes) -> None:
        axes.set(xlim=(0, 1.01))

    return _overlaid(
        divided, "Coverage (share of answers kept)", "Risk (error rate among those kept)", draw, frame
    )


def _reliability(divided: Sequence[Panel]) -> Figure:
    def draw(axes: Axes, series: Series) -> None:
        (cell,) = series.cells
        stated = probabilities(cell)
        assert stated is not None
        points = Calibration(cell.labels, stated).reliability()
        axes.plot(
            points.confidence,
            points.accuracy,
            color=series.color,
            linewidth=1.4,
            label=_legend(series, "ece"),
        )
        axes.scatter(
            points.confidence,
            points.accuracy,
            s=12 + 300 * points.weight,
            color=series.color,
            alpha=0.6,
            linewidth=0,
        )

    def frame(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color=GRAY, linewidth=1)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))

    return _overlaid(divided, "Mean probability in the bin", "Share of positives in the bin", draw, frame)


def _auroc_by_layer(divided: Sequence[Panel]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes, series: Series) -> None:
        (cell,) = series.cells
        layers, areas = zip(*cell.record.steps["layer_auroc"], strict=True)
        axes.plot(
            layers,
            areas,
            color=series.color,
            linewidth=1.6,
            marker="o",
            markersize=3.5,
            label=_legend(series, "auroc"),
        )

    def frame(axes: Axes) -> None:
        axes.axhline(0.5, linestyle="--", color=GRAY, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _overlaid(divided, "Layer (blocks read; 0: embeddings)", "Test AUROC", draw, frame)


def _overlaid(
    divided: Sequence[Panel], x_label: str, y_label: str, draw: Draw, frame: Callable[[Axes], None]
) -> Figure:
    """Draw every series of every panel, the legend below the panel."""
    figure, every = new_panels([panel.title for panel in divided], x_label, y_label, height=5.2)
    for axes, panel in zip(every, divided, strict=True):
        frame(axes)
        for series in panel.series:
            draw(axes, series)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize="small", frameon=False)
    return figure


def _legend(series: Series, metric: str) -> str:
    estimate = series.cells[0].estimate(metric)
    value = "" if estimate is None else f"{metric.upper()} {interval_text(estimate)}"
    return f"{series.name}: {value}" if series.name else value
