"""The figures of a report, each over many cells, as charts.

Knows cells and evaluation's curves. A chart is made only where there is something to draw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from probegrid.evaluation.calibration import Calibration, ece
from probegrid.evaluation.checks import FloatArray
from probegrid.evaluation.figures import FIRST_COVERAGE_IN_VIEW, interval_text
from probegrid.evaluation.ranking import risk_coverage_curve, roc_curve
from probegrid.report.cells import RecordedCell
from probegrid.report.charts import Chart, ChartPanel, Curve, Mark, thinned
from probegrid.report.columns import label, shown
from probegrid.report.cost_figures import COST_FIGURES, cost_charts
from probegrid.report.panels import Panel, Series, only, panels
from probegrid.report.ranking_figure import ranking_chart
from probegrid.report.seeds import over_seeds

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
    """Every figure that these cells give; of cells that differ in seeds alone, means, and the curves of the first.

    Args:
        cells: those that ended well; none give no figure.
    """
    figures = Figures()
    if not cells:
        return figures
    together = over_seeds(cells)
    merged = [one.merged for one in together]
    figures.add(ranking_chart(merged))
    for chart in (*_by_size(merged), *_by_hours(merged)):
        figures.add(chart)
    cells = [one.cells[0] for one in together]  # a curve is of one cell; means have none
    divided = panels(cells)
    if len(divided) > MOST_PANELS:  # no curve need be computed to know that
        figures.left_out.extend(_has_any(cells))
    else:
        for chart in (
            _roc(divided),
            _risk_coverage(divided),
            _reliability(divided),
            _auroc_by_layer(divided),
        ):
            figures.add(chart)
    if len(cells) <= MOST_BARS:
        for chart in cost_charts(cells):
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
        "auroc_by_layer": _has_layers,
    }
    return [name for name, of in has.items() if any(map(of, cells))]


def _has_layers(cell: RecordedCell) -> bool:
    return "layer_auroc" in cell.record.steps


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
        saved = json.loads((cell.folder / "probe.json").read_text())
        scale = float(load_file(file)["scale"][saved["layers"].index(saved["layer"])])
    return np.asarray(expit(scale * cell.values), dtype=np.float64)


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


def _roc(divided: Sequence[Panel]) -> Chart:
    def curve(series: Series) -> Curve:
        (cell,) = series.cells
        return Curve(
            _legend(series, "auroc"), *thinned(*roc_curve(cell.labels, cell.values)), place=series.place
        )

    return Chart(
        "roc",
        "False positive rate",
        "True positive rate",
        _overlaid(only(divided, _has_roc), curve),
        square=True,
    )


def _risk_coverage(divided: Sequence[Panel]) -> Chart:
    def curve(series: Series) -> Curve:
        (cell,) = series.cells
        coverage, risk = risk_coverage_curve(cell.labels, cell.values)
        in_view = coverage >= FIRST_COVERAGE_IN_VIEW
        return Curve(_legend(series, "aurc"), *thinned(coverage[in_view], risk[in_view]), place=series.place)

    return Chart(
        "risk_coverage",
        "Coverage (share of answers kept)",
        "Risk (error rate among those kept)",
        _overlaid(only(divided, _has_risk), curve),
    )


def _reliability(divided: Sequence[Panel]) -> Chart:
    def curve(series: Series) -> Curve:
        (cell,) = series.cells
        stated = probabilities(cell)
        assert stated is not None
        points = Calibration(cell.labels, stated).reliability()
        return Curve(
            _legend(series, "ece"),
            points.confidence,
            points.accuracy,
            series.place,
            Mark.both,
            sizes=12 + 300 * points.weight,
            says=[f"{weight:.0%} of the examples" for weight in points.weight],
        )

    return Chart(
        "reliability",
        "Mean probability in the bin",
        "Share of positives in the bin",
        _overlaid(only(divided, lambda cell: probabilities(cell) is not None), curve),
        square=True,
    )


def _auroc_by_layer(divided: Sequence[Panel]) -> Chart:
    def curve(series: Series) -> Curve:
        (cell,) = series.cells
        layers, areas = (
            np.array(values, dtype=np.float64)
            for values in zip(*cell.record.steps["layer_auroc"], strict=True)
        )
        return Curve(_legend(series, "auroc"), layers, areas, series.place, Mark.both)

    return Chart(
        "auroc_by_layer",
        "Layer (blocks read; 0: embeddings)",
        "Test AUROC",
        _overlaid(only(divided, _has_layers), curve),
        level=0.5,
        whole_x=True,
    )


def _overlaid(divided: Sequence[Panel], curve: Callable[[Series], Curve]) -> list[ChartPanel]:
    return [ChartPanel(panel.title, [curve(series) for series in panel.series]) for panel in divided]


def _legend(series: Series, metric: str) -> str:
    estimate = series.cells[0].estimate(metric)
    value = "" if estimate is None else f"{metric.upper()} {interval_text(estimate)}"
    return f"{series.name}: {value}" if series.name else value
