"""The figures of a report, each over many cells, as charts.

Knows cells. A chart is made only where there is something to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from probegrid.report.cells import RecordedCell
from probegrid.report.charts import Chart, ChartPanel, Curve, Mark
from probegrid.report.columns import label, shown
from probegrid.report.cost_figures import COST_FIGURES, cost_charts
from probegrid.report.curves import Curves, has_layers
from probegrid.report.panels import Panel, panels
from probegrid.report.ranking_figure import ranking_chart
from probegrid.report.seeds import over_seeds
from probegrid.report.spread_figure import spread_charts

_TRADED: dict[str, tuple[str, str, Callable[[RecordedCell], bool]]] = {
    "accuracy": ("accuracy", "Accuracy of answers", lambda cell: not cell.is_trained),
    "probe_accuracy": ("accuracy", "Accuracy of the probe's calls", lambda cell: cell.is_trained),
    "auroc": ("auroc", "AUROC", lambda _: True),
}
"""By figure: the metric, its axis, and the cells that have it."""
_FEWEST_POINTS = 2
_FEW_HOURS = 0.1
MOST_PANELS = 24
"""A figure of more panels is not drawn."""
MOST_BARS = 120
"""A figure of more bars is not drawn."""


@dataclass(frozen=True)
class Figures:
    """Charts in order, and the names of those that would have too much on them to be read."""

    charts: list[Chart] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, chart: Chart) -> None:
        """Add a chart, if it has panels and not too many."""
        if len(chart.panels) > MOST_PANELS:
            self.left_out.append(chart.name)
        elif chart.panels:
            self.charts.append(chart)

    def replace(self, chart: Chart) -> None:
        """Put a chart in the place of another of its name, which tells less."""
        self.charts[:] = [chart, *(each for each in self.charts if each.name != chart.name)]


def make_figures(cells: Sequence[RecordedCell]) -> Figures:
    """Every figure that these cells give; of cells that differ in seeds alone, means.

    Args:
        cells: those that ended well; none give no figure.
    """
    figures = Figures()
    if not cells:
        return figures
    together = over_seeds(cells)
    merged = [one.merged for one in together]
    figures.add(ranking_chart(merged, is_over_seeds=any(len(one.cells) > 1 for one in together)))
    for chart in (*_by_size(merged), *_by_hours(merged)):
        figures.add(chart)
    divided = panels(merged)
    if len(divided) > MOST_PANELS:  # no curve need be computed to know that
        figures.left_out.extend(_has_any(merged))
    else:
        for chart in Curves(divided, together).charts():
            figures.add(chart)
    if len(merged) <= MOST_BARS:
        for chart in (*spread_charts(together), *cost_charts(together)):
            figures.add(chart)
    else:
        figures.left_out.extend(COST_FIGURES)
    return figures


def _has_any(cells: Sequence[RecordedCell]) -> list[str]:
    """Names of the curves that any of these cells would give, as far as its record tells."""
    has = {
        "roc": lambda _: True,
        "risk_coverage": lambda cell: not cell.is_trained,
        "reliability": lambda cell: cell.metric("ece") is not None,
        "auroc_by_layer": has_layers,
    }
    return [name for name, of in has.items() if any(map(of, cells))]


def _has_layers(cell: RecordedCell) -> bool:
    return "layer_auroc" in cell.record.steps


def _by_size(cells: Sequence[RecordedCell]) -> list[Chart]:
    """Accuracy and AUROC against parameters, where models differ in size."""
    sized = [cell for cell in cells if cell.parameters]
    return _traded(sized, "parameters", "Parameters", lambda cell: cell.parameters)


def _by_hours(cells: Sequence[RecordedCell]) -> list[Chart]:
    """Accuracy and AUROC against the measured hours of the devices (seconds where they are few)."""
    hours = {cell.record.cell: cell.reading_hours for cell in cells if cell.reading_hours}
    timed = [cell for cell in cells if cell.record.cell in hours]
    if not timed:
        return []
    device, name = ("GPU", "gpu_hours") if all(cell.gpus for cell in timed) else ("Device", "device_hours")
    unit, factor = ("hours", 1) if max(hours.values()) > _FEW_HOURS else ("seconds", 3600)
    return _traded(timed, name, f"{device}-{unit}, reading", lambda cell: factor * hours[cell.record.cell])


def _traded(
    cells: Sequence[RecordedCell], name: str, x_label: str, x_of: Callable[[RecordedCell], float | None]
) -> list[Chart]:
    """A chart a metric, over one and the same axis; none where all cells that have the metric stand at one place."""
    charts = []
    for figure, (metric, title, has) in _TRADED.items():
        kept = [cell for cell in cells if has(cell)]
        if len({x_of(cell) for cell in kept}) >= _FEWEST_POINTS:
            drawn = [_scatter(panel, metric, title, x_of) for panel in panels(kept, along="model")]
            charts.append(
                Chart(
                    f"{figure}_by_{name}",
                    x_label,
                    title,
                    [panel for panel in drawn if panel.curves],
                    is_log=True,
                )
            )
    return charts


def _scatter(
    panel: Panel, metric: str, title: str, x_of: Callable[[RecordedCell], float | None]
) -> ChartPanel:
    """Each cell with its interval; the models of a series are joined by a line."""
    curves = []
    for series in panel.series:
        rising = sorted(series.cells, key=lambda cell: x_of(cell) or 0)
        points = [(cell, x_of(cell), cell.estimate(metric)) for cell in rising]
        found = [
            (cell, x, one) for cell, x, one in points if x and one is not None and not np.isnan(one.value)
        ]
        if found:
            columns = shown([cell for cell, _, _ in found])
            curves.append(
                Curve(
                    series.name or title,
                    np.array([x for _, x, _ in found]),
                    np.array([one.value for _, _, one in found]),
                    series.place,
                    Mark.both if len(found) > 1 else Mark.points,
                    np.array([one.low for _, _, one in found]),
                    np.array([one.high for _, _, one in found]),
                    says=[label(cell, columns) for cell, _, _ in found],
                )
            )
    return ChartPanel(panel.title, curves)
