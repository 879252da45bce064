"""How cells share a figure: panels that can be read, a few series each.

Knows which columns tell cells apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from probegrid.evaluation.figures import PALETTE
from probegrid.report.cells import RecordedCell
from probegrid.report.columns import label, varying

_ALWAYS_APART = "dataset"  # curves of different questions do not belong on one another


@dataclass(frozen=True)
class Series:
    """Cells that are drawn as one: a curve of one cell, or points that belong together."""

    name: str
    cells: Sequence[RecordedCell]
    place: int
    """Which of the colors, dashes and markers it has."""


@dataclass(frozen=True)
class Panel:
    """What is drawn on one pair of axes."""

    title: str
    series: Sequence[Series]


def panels(cells: Sequence[RecordedCell], *, along: str | None = None) -> list[Panel]:
    """Divide cells into panels of at most as many series as there are colors.

    Datasets stand apart; where there are still too many series, so do the values of further columns, the one
    with the most values first.

    Args:
        cells: what is drawn.
        along: a column that varies within a series (``model``); by default a series is one cell.
    """
    columns = varying(cells)
    apart = [name for name in columns if name == _ALWAYS_APART]
    within = [name for name in columns if name not in (_ALWAYS_APART, along)]
    within.sort(key=lambda name: len({cell.value(name) for cell in cells}))
    while max(len(_by(part, within)) for part in _by(cells, apart).values()) > len(PALETTE):
        apart.append(within.pop())
    return [Panel(title, _series(part, within)) for title, part in _by(cells, apart).items()]


def only(divided: Sequence[Panel], kept: Callable[[RecordedCell], bool]) -> list[Panel]:
    """The same panels without the cells that are not kept; names and colors stay, what is empty goes."""
    remaining = [
        Panel(panel.title, [series for series in panel.series if all(map(kept, series.cells))])
        for panel in divided
    ]
    return [panel for panel in remaining if panel.series]


def _series(cells: Sequence[RecordedCell], within: Sequence[str]) -> list[Series]:
    """Cells of one panel, named by what varies in it."""
    parts = _by(cells, [name for name in varying(cells) if name in within])
    return [Series(*part, place) for place, part in enumerate(parts.items())]


def _by(cells: Sequence[RecordedCell], columns: Sequence[str]) -> dict[str, list[RecordedCell]]:
    """Cells by their label, in the order the labels first occur."""
    parts = defaultdict(list)
    for cell in cells:
        parts[label(cell, columns)].append(cell)
    return dict(parts)
