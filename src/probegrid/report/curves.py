"""Curves of cells: ROC, risk and coverage, reliability, AUROC by layer; means of cells that differ in seeds alone.

Knows cells and evaluation's curves. A mean has a band about it, a standard deviation either way; reliability is that of
the examples of all seeds together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from probegrid.evaluation.calibration import Calibration, ece
from probegrid.evaluation.checks import FloatArray
from probegrid.evaluation.figures import FIRST_COVERAGE_IN_VIEW, interval_text
from probegrid.evaluation.ranking import risk_coverage_curve, roc_curve
from probegrid.report.cells import RecordedCell
from probegrid.report.charts import Chart, ChartPanel, Curve, Mark, thinned
from probegrid.report.panels import Panel, Series, only
from probegrid.report.seeds import OverSeeds

_ROUNDING = 1e-9
_RATES = np.linspace(0, 1, 101)
"""False positive rates at which ROC curves are averaged (Fawcett 2006, "vertical averaging")."""
_COVERAGES = np.linspace(FIRST_COVERAGE_IN_VIEW, 1, 96)

_Points = tuple[FloatArray, FloatArray]


class Curves:
    """The figures of curves, over the same panels.

    Args:
        divided: panels whose series are of one cell each, that of `OverSeeds.merged`.
        together: what each of these cells stands for.
    """

    def __init__(self, divided: Sequence[Panel], together: Sequence[OverSeeds]) -> None:
        self._divided = divided
        self._behind: Mapping[str, OverSeeds] = {one.merged.record.cell: one for one in together}

    def charts(self) -> list[Chart]:
        """Every figure, also of no panels."""
        return [self._roc(), self._risk_coverage(), self._reliability(), self._auroc_by_layer()]

    def _roc(self) -> Chart:
        def curve(series: Series) -> Curve:
            found = [roc_curve(cell.labels, cell.values) for cell in self._of(series).cells]
            return self._mean(series, found, _RATES, "auroc")

        return Chart(
            "roc", "False positive rate", "True positive rate", self._panels(_has_roc, curve), square=True
        )

    def _risk_coverage(self) -> Chart:
        def curve(series: Series) -> Curve:
            found = [_risk_in_view(cell) for cell in self._of(series).cells]
            return self._mean(series, found, _COVERAGES, "aurc")

        return Chart(
            "risk_coverage",
            "Coverage (share of answers kept)",
            "Risk (error rate among those kept)",
            self._panels(_has_risk, curve),
        )

    def _reliability(self) -> Chart:
        def curve(series: Series) -> Curve:
            cells = self._of(series).cells
            stated = [found for cell in cells if (found := probabilities(cell)) is not None]
            labels = np.concatenate([cell.labels for cell in cells])
            points = Calibration(labels, np.concatenate(stated)).reliability()
            return Curve(
                self._legend(series, "ece"),
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
            self._panels(lambda cell: probabilities(cell) is not None, curve),
            square=True,
        )

    def _auroc_by_layer(self) -> Chart:
        def curve(series: Series) -> Curve:
            found = [_by_layer(cell) for cell in self._of(series).cells]
            shared = sorted(set.intersection(*({*layers.tolist()} for layers, _ in found)))
            return self._mean(series, found, np.array(shared), "auroc", mark=Mark.both)

        return Chart(
            "auroc_by_layer",
            "Layer (blocks read; 0: embeddings)",
            "Test AUROC",
            self._panels(has_layers, curve),
            level=0.5,
            whole_x=True,
        )

    def _of(self, series: Series) -> OverSeeds:
        (cell,) = series.cells
        return self._behind[cell.record.cell]

    def _panels(
        self, has: Callable[[RecordedCell], bool], curve: Callable[[Series], Curve]
    ) -> list[ChartPanel]:
        """The panels of what has such a curve, all its seeds."""
        kept = only(self._divided, lambda cell: all(map(has, self._behind[cell.record.cell].cells)))
        return [ChartPanel(panel.title, [curve(series) for series in panel.series]) for panel in kept]

    def _mean(
        self,
        series: Series,
        found: Sequence[_Points],
        at: FloatArray,
        metric: str,
        *,
        mark: Mark = Mark.line,
    ) -> Curve:
        """One curve as it is; of several the mean at these places, and a standard deviation either way."""
        name = self._legend(series, metric)
        if len(found) == 1:
            return Curve(name, *thinned(*found[0]), place=series.place, mark=mark)
        values = np.array([np.interp(at, x, y) for x, y in found])
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
        return Curve(
            name, at, mean, series.place, mark, low=mean - deviation, high=mean + deviation, is_band=True
        )

    def _legend(self, series: Series, metric: str) -> str:
        (cell,) = series.cells
        over, estimate = self._of(series).text(metric), cell.estimate(metric)
        number = over if over is not None else "" if estimate is None else interval_text(estimate)
        value = f"{metric.upper()} {number}" if number else ""
        return ": ".join(filter(None, [series.name, value]))


def has_layers(cell: RecordedCell) -> bool:
    """Whether its AUROC is known by layer."""
    return "layer_auroc" in cell.record.steps


def _has_roc(cell: RecordedCell) -> bool:
    return cell.has_one_scale and not math.isnan(cell.record.metrics["auroc"])


def _has_risk(cell: RecordedCell) -> bool:
    return cell.has_one_scale and not cell.is_trained


def _risk_in_view(cell: RecordedCell) -> _Points:
    coverage, risk = risk_coverage_curve(cell.labels, cell.values)
    in_view = coverage >= FIRST_COVERAGE_IN_VIEW
    return coverage[in_view], risk[in_view]


def _by_layer(cell: RecordedCell) -> _Points:
    layers, areas = zip(*sorted(cell.record.steps["layer_auroc"]), strict=True)
    return np.array(layers, dtype=np.float64), np.array(areas, dtype=np.float64)


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
