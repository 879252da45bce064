"""Charts drawn for papers, as SVG and PDF; the same chart gives the same bytes.

Knows charts and matplotlib. A series is told from others by its color, its dashes and its marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probegrid.evaluation.figures import GRAY, PALETTE, dress, pdf, svg
from probegrid.report.charts import Chart, ChartPanel, Curve, Mark
from probegrid.report.tables import amount_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_PANELS_A_ROW = 3
_PLOT_INCHES, _BAR_INCHES, _LINE_INCHES = 3.5, 0.27, 0.19
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.75, 0.25, 0.45, 0.6
_LETTER_INCHES = 0.075
_TICKS, _FEWEST_TICKS = 6, 3


def draw(chart: Chart) -> dict[str, bytes]:
    """The chart's files by their ending: ``svg`` and ``pdf``."""
    figure = _figure(chart)
    return {"svg": svg(figure), "pdf": pdf(figure)}


def row_shares(chart: Chart) -> list[float]:
    """What each row of panels takes of the height of the drawn figure, from the top; 1 in all."""
    heights = [max(map(_height, row)) for row in _rows(chart)]
    return [height / sum(heights) for height in heights]


def _rows(chart: Chart) -> list[Sequence[ChartPanel]]:
    columns = min(_PANELS_A_ROW, len(chart.panels))
    return [chart.panels[first : first + columns] for first in range(0, len(chart.panels), columns)]


def _figure(chart: Chart) -> Figure:
    """Panels in rows, each with its legend below, placed by hand: matplotlib's own layout takes a second a panel."""
    from matplotlib.figure import Figure

    rows = _rows(chart)
    columns = len(rows[0])
    left = max([_LEFT, *(0.3 + _LETTER_INCHES * len(name) for panel in chart.panels for name in panel.names)])
    width = left + 4.0 + _RIGHT
    heights = [max(map(_height, row)) for row in rows]
    figure = Figure(figsize=(width * columns, sum(heights)))
    top = sum(heights)
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            plot = _plot_inches(panel)
            across, up = width * columns, sum(heights)
            axes = figure.add_axes(
                (
                    (column * width + left) / across,
                    (top - _TOP - plot) / up,
                    (width - left - _RIGHT) / across,
                    plot / up,
                )
            )
            _draw_panel(axes, chart, panel)
        top -= height
    return figure


def _plot_inches(panel: ChartPanel) -> float:
    return 0.35 + _BAR_INCHES * len(panel.names) if panel.names else _PLOT_INCHES


def _height(panel: ChartPanel) -> float:
    entries = len(panel.curves) if panel.curves else len(panel.bars)
    return _TOP + _plot_inches(panel) + _BOTTOM + _LINE_INCHES * entries * (entries > 1 or bool(panel.curves))


def _draw_panel(axes: Axes, chart: Chart, panel: ChartPanel) -> None:
    dress(axes, panel.title, chart.x_label, chart.y_label)
    if chart.square:
        axes.plot([0, 1], [0, 1], "--", color=GRAY, linewidth=1)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if chart.level is not None:
        axes.axhline(chart.level, linestyle="--", color=GRAY, linewidth=1)
    if chart.upright is not None:
        axes.axvline(chart.upright, linestyle="--", color=GRAY, linewidth=1)
    if chart.is_log:
        axes.set_xscale("log")
    if chart.whole_x:
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for curve in panel.curves:
        _draw_curve(axes, curve, is_named=bool(panel.names))
    if panel.bars:
        _draw_bars(axes, panel)
    if chart.is_log:
        _mark_log(axes)
    if panel.names:
        axes.set_yticks(range(len(panel.names)), panel.names)
        axes.set_ylim(len(panel.names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
    if axes.get_legend_handles_labels()[1]:
        below = -(_BOTTOM - 0.08) / _plot_inches(panel)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, below), fontsize="small", frameon=False)


def _mark_log(axes: Axes) -> None:
    """Plain numbers along a logarithmic x: matplotlib's own (3 x 10^-1) run into each other within a decade."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    low, high = axes.get_xlim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        marks = np.outer(decades, steps).ravel()
        marks = marks[(low <= marks) & (marks <= high)]
        if len(marks) >= _FEWEST_TICKS:
            break
    else:
        marks = np.asarray(MaxNLocator(_TICKS).tick_values(low, high))
    axes.xaxis.set_major_locator(FixedLocator(marks[:: 1 + len(marks) // (2 * _TICKS)].tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlim(low, high)


def _draw_curve(axes: Axes, curve: Curve, *, is_named: bool) -> None:
    place = curve.place
    style: dict[str, Any] = {"color": PALETTE[place % len(PALETTE)], "label": curve.name or None}
    line: dict[str, Any] = {"linestyle": DASHES[place % len(DASHES)], "linewidth": 1.6}
    if curve.mark is Mark.points:
        line = {"linestyle": "", "linewidth": 1.6}
    marker: dict[str, Any] = (
        {} if curve.mark is Mark.line else {"marker": MARKERS[place % len(MARKERS)], "markersize": 5}
    )
    if curve.sizes is not None:
        axes.plot(curve.x, curve.y, **style, **line)
        axes.scatter(
            curve.x, curve.y, s=curve.sizes, color=style["color"], alpha=0.6, linewidth=0,
            marker=MARKERS[place % len(MARKERS)],
        )  # fmt: skip
    elif curve.is_band and curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=style["color"], alpha=0.18, linewidth=0)
        axes.plot(curve.x, curve.y, **style, **line, **marker)
    elif curve.low is not None and curve.high is not None:
        values = curve.x if is_named else curve.y
        ends = np.nan_to_num(np.array([values - curve.low, curve.high - values]).clip(min=0))
        error = {"xerr" if is_named else "yerr": ends}
        axes.errorbar(curve.x, curve.y, **error, **style, **line, **marker, capsize=3, elinewidth=1.1)
    else:
        axes.plot(curve.x, curve.y, **style, **line, **marker)


def _draw_bars(axes: Axes, panel: ChartPanel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ends = np.zeros(len(panel.names))
    for part in panel.bars:
        bars = axes.barh(
            range(len(panel.names)),
            part.values,
            left=ends,
            color=part.color,
            height=0.7,
            label=part.name or None,
        )
        for place in panel.hatched:
            bars[place].set(hatch="///", alpha=0.55, edgecolor="white")
        ends = ends + part.values
    axes.bar_label(bars, [amount_text(end) for end in ends], padding=3)
    axes.set_xlim(0, 1.18 * float(ends.max()) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
