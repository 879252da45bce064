"""What a figure of a report shows, apart from how it is drawn: panels of curves, of points with intervals, of bars.

Knows numbers and names. A chart is drawn twice from the same values: by matplotlib for papers (`drawing`), and by the
page's script, which answers to the pointer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray

MOST_VERTICES = 200
"""Of a drawn curve: more cannot be seen."""
_DIGITS = 5


class Mark(StrEnum):
    """How the points of a series are drawn."""

    line = "line"
    points = "points"
    both = "both"


@dataclass(frozen=True)
class Curve:
    """Points of one series.

    Attributes:
        name: of the legend.
        x, y: `float[n]`.
        place: which color, dash and marker of those that there are; the same of the same series in every figure.
        mark: line, points or both.
        low, high: ends of each point's interval, where there is one: of y, or of x where panels have names along y.
        is_band: whether low and high are a band about a line and not a bar at each point.
        sizes: area of each marker, in points squared; None: all alike.
        says: what each point is, for the pointer; empty: its numbers alone.
    """

    name: str
    x: FloatArray
    y: FloatArray
    place: int = 0
    mark: Mark = Mark.line
    low: FloatArray | None = None
    high: FloatArray | None = None
    sizes: FloatArray | None = None
    says: Sequence[str] = ()
    is_band: bool = False

    def plain(self) -> dict[str, Any]:
        """Its values as a page takes them."""
        arrays = {"x": self.x, "y": self.y, "low": self.low, "high": self.high, "sizes": self.sizes}
        return {
            "name": self.name,
            "place": self.place,
            "mark": self.mark.value,
            "says": list(self.says),
            "is_band": self.is_band,
            **{name: _short(values) for name, values in arrays.items() if values is not None},
        }


@dataclass(frozen=True)
class Bar:
    """One part of every bar of a panel; parts are stacked.

    Attributes:
        name: of the legend; empty where there is one part.
        values: `float[n]`, one a bar; 0 for none.
        color: of the part.
    """

    name: str
    values: FloatArray
    color: str

    def plain(self) -> dict[str, Any]:
        """Its values as a page takes them."""
        return {"name": self.name, "values": _short(self.values), "color": self.color}


@dataclass(frozen=True)
class ChartPanel:
    """One pair of axes: curves, or bars by name.

    Attributes:
        title: of the panel; empty where there is one.
        curves: drawn over one another.
        bars: parts of the bars, stacked in this order.
        names: along y, from the top: of the bars, or of the points of the curves, whose y are places among them.
        hatched: bars that stand for what was not measured here, by place.
    """

    title: str
    curves: Sequence[Curve] = ()
    bars: Sequence[Bar] = ()
    names: Sequence[str] = ()
    hatched: Sequence[int] = ()

    def plain(self) -> dict[str, Any]:
        """Its values as a page takes them."""
        return {
            "title": self.title,
            "curves": [curve.plain() for curve in self.curves],
            "bars": [bar.plain() for bar in self.bars],
            "names": list(self.names),
            "hatched": list(self.hatched),
        }


@dataclass(frozen=True)
class Chart:
    """A figure: panels on like axes.

    Attributes:
        name: of its files.
        x_label, y_label: of every panel.
        panels: at least one.
        is_log: whether x is logarithmic.
        square: whether both axes go from 0 to 1 and a diagonal stands for chance, or calibration.
        level, upright: a horizontal, and a vertical, line; None for none.
        whole_x: whether x are whole numbers.
        note: what is to be known of it.
    """

    name: str
    x_label: str
    y_label: str
    panels: Sequence[ChartPanel]
    is_log: bool = False
    square: bool = False
    level: float | None = None
    whole_x: bool = False
    upright: float | None = None
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """Its values as a page takes them."""
        return {
            "name": self.name,
            "x_label": self.x_label,
            "y_label": self.y_label,
            "is_log": self.is_log,
            "square": self.square,
            "level": self.level,
            "upright": self.upright,
            "whole_x": self.whole_x,
            "panels": [panel.plain() for panel in self.panels],
        }


def thinned(x: ArrayLike, y: ArrayLike, most: int = MOST_VERTICES) -> tuple[FloatArray, FloatArray]:
    """A curve with at most so many vertices, evenly chosen among its own, the ends kept.

    >>> thinned([0, 1, 2, 3, 4], [0, 1, 4, 9, 16], 3)
    (array([0., 2., 4.]), array([ 0.,  4., 16.]))
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(xs) <= most:
        return xs, ys
    kept = np.unique(np.linspace(0, len(xs) - 1, most).round().astype(int))
    return xs[kept], ys[kept]


def _short(values: FloatArray) -> list[float | None]:
    """As many digits as can be seen."""
    return [None if value != value else float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
