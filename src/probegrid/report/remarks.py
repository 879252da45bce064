"""What a report says of itself: which cells stand for others, and what is left out because nobody would read it.

Knows cells and the names of figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from probegrid.report.cells import RecordedCell
from probegrid.report.page import figure_heading
from probegrid.report.seeds import over_seeds


def over_their_seeds(cells: Sequence[RecordedCell]) -> list[str]:
    """What to know of numbers and figures where cells differ in seeds alone."""
    together = over_seeds(cells)
    if len(together) == len(cells):
        return []
    return [
        f"{len(cells)} cells are {len(together)} but for their seeds: numbers, points, bars and curves are means, "
        "error bars and bands a standard deviation either way; reliability is of the examples of all seeds together."
    ]


def no_details(count: int, most: int) -> str:
    """That so many cells are not looked at in detail, and of how many they would be."""
    return (
        f"Of {count} cells scores of one reading are not compared with each other, and answers not judged by other "
        f"rules: of at most {most} they are. report.model, report.dataset, report.probe and the like choose fewer."
    )


def not_drawn(count: int, figures: Sequence[str]) -> str:
    """Which figures of so many cells are not drawn, and what draws them."""
    return (
        f"Not drawn, for {count} cells would not be read: {'; '.join(map(figure_heading, figures))}. report.model, "
        "report.quantization, report.device_map, report.dataset, report.probe and report.sweep choose fewer."
    )
