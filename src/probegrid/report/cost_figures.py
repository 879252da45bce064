"""Costs as bars, a bar a cell: seconds of loading and reading, tokens a second, peak memory by device.

Knows costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from probegrid.evaluation.figures import BLUE, GRAY, ORANGE, PALETTE, new_panels
from probegrid.report.cells import RecordedCell
from probegrid.report.columns import label, shown
from probegrid.report.costs import GPU, RAM, costs_of
from probegrid.report.tables import amount_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COST_FIGURES = ("seconds", "speed", "memory")
"""Their names."""
_BAR_INCHES = 0.27
_TICKS = 6


def cost_figures(cells: Sequence[RecordedCell]) -> dict[str, Figure]:
    """The figures by name; none of a measurement that no cell has.

    Args:
        cells: those that ended well, at least one.
    """
    costs = costs_of(cells)
    columns = shown(cells)
    names = {cell.record.cell: label(cell, columns) for cell in cells}
    measured = [(names[cell.record.cell], costs[cell.record.cell].values) for cell in cells]
    gpus = sorted(
        {name for _, values in measured for name in values if _is_gpu(name) and values[name] > 0}, key=_index
    )
    drawn = {
        "seconds": _bars(measured, "Seconds", {"load_s": ("loading", ORANGE), "read_s": ("reading", BLUE)}),
        "speed": _bars(measured, "Tokens a second while reading", {"tokens_per_s": ("", BLUE)}),
        "memory": _bars(
            measured,
            "Peak memory (GB)",
            {RAM: ("the process", GRAY)}
            | {name: (f"GPU {_index(name)}", PALETTE[_index(name) % len(PALETTE)]) for name in gpus},
        ),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _is_gpu(measure: str) -> bool:
    return measure.removeprefix(GPU).isdecimal()


def _index(measure: str) -> int:
    return int(measure.removeprefix(GPU))


def _bars(
    measured: Sequence[tuple[str, Mapping[str, float]]], x_label: str, parts: Mapping[str, tuple[str, str]]
) -> Figure | None:
    """A bar a cell that has any of the parts, made of them one after another, its sum written beside it."""
    kept = [(name, values) for name, values in measured if any(part in values for part in parts)]
    if not kept:
        return None
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure, (axes,) = new_panels([""], x_label, "", height=1.4 + _BAR_INCHES * len(kept))
    ends = np.zeros(len(kept))
    for part, (title, color) in parts.items():
        widths = np.array([values.get(part, 0.0) for _, values in kept])
        bars = axes.barh(range(len(kept)), widths, left=ends, color=color, height=0.7, label=title)
        ends = ends + widths
    axes.bar_label(bars, [amount_text(end) for end in ends], padding=3)
    axes.set_yticks(range(len(kept)), [name for name, _ in kept])
    axes.set(xlim=(0, 1.15 * max(ends) or 1), ylim=(len(kept) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.grid(visible=False, axis="y")
    if len(parts) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(len(parts), 5), frameon=False)
    return figure
