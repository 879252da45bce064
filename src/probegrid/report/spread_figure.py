"""How far an AUROC hangs on what else was drawn: its own interval beside the spread over folds, repeats and seeds.

Knows cells and the numbers that folds, repeats and seeds leave. The interval of one division counts its test examples
alone; other examples to learn from, and another draw, move a number too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from probegrid.report.cells import RecordedCell
from probegrid.report.charts import Chart, ChartPanel, Curve, Mark
from probegrid.report.columns import label, shown
from probegrid.report.seeds import OverSeeds

_INTERVAL, _DEVIATION = "95% interval", "mean, and a standard deviation either way"
_SPREADS = {"folds": "auroc_fold", "repeats": "auroc_repeat"}

_Row = tuple[str, str, tuple[float, float, float]]
"""What it is, of which kind its ends are, and value, low and high."""


def spread_charts(together: Sequence[OverSeeds]) -> list[Chart]:
    """The figure, a few rows a cell that has a spread; none where no cell has.

    Args:
        together: cells that ended well.
    """
    columns = shown([one.merged for one in together])
    rows = [row for one in together for row in _rows(one, label(one.merged, columns))]
    if not rows:
        return []
    curves = []
    for place, kind in enumerate((_INTERVAL, _DEVIATION)):
        at = np.array([row for row, (_, of, _) in enumerate(rows) if of == kind], dtype=np.float64)
        values, low, high = np.array([ends for _, of, ends in rows if of == kind]).T
        curves.append(Curve(kind, values, at, place, Mark.points, low, high))
    return [
        Chart(
            "spread", "AUROC", "", [ChartPanel("", curves, names=[name for name, _, _ in rows])], upright=0.5
        )
    ]


def _rows(one: OverSeeds, name: str) -> Iterator[_Row]:
    """The cell's own number, and each spread that it has; nothing where it has none."""
    own = one.cells[0].estimate("auroc")
    if own is None or np.isnan(own.value):
        return
    spreads = {f"over {of}": _spread(one.merged, metric) for of, metric in _SPREADS.items()}
    if len(one.cells) > 1:
        spreads[f"over {len(one.cells)} seeds"] = _of_seeds(one.merged)
    found = {of: ends for of, ends in spreads.items() if ends is not None}
    if not found:
        return
    first = f"{name}, the first seed" if len(one.cells) > 1 else name
    yield first, _INTERVAL, (own.value, own.low, own.high)
    for of, ends in found.items():
        yield f"{name}, {of}", _DEVIATION, ends


def _spread(cell: RecordedCell, metric: str) -> tuple[float, float, float] | None:
    mean, deviation = cell.metric(f"{metric}_mean"), cell.metric(f"{metric}_sd")
    if mean is None or deviation is None or np.isnan(mean + deviation):
        return None
    return mean, mean - deviation, mean + deviation


def _of_seeds(merged: RecordedCell) -> tuple[float, float, float] | None:
    found = merged.estimate("auroc")
    return None if found is None or np.isnan(found.value) else (found.value, found.low, found.high)
