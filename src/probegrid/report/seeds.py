"""Cells that differ in seeds alone, taken together: mean, standard deviation and number of their metrics.

Knows records and flattened configs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from probegrid.report.cells import RecordedCell
from probegrid.tracking.naming import has_effect

_ENDS = ("_ci_low", "_ci_high")


@dataclass(frozen=True)
class OverSeeds:
    """Cells that differ in seeds alone.

    Attributes:
        cells: one or more, in the order they were started.
        merged: the first of them, with the mean of each metric and, as its interval's ends, a standard deviation either
            way; without the seeds in its config. A cell that is alone is itself.
    """

    cells: Sequence[RecordedCell]
    merged: RecordedCell

    def text(self, metric: str) -> str | None:
        """``0.912 ± 0.021 (4)``: mean, standard deviation and number; None where a cell is alone or has none."""
        values = self._values(metric)
        if len(self.cells) == 1 or not len(values):
            return None
        if np.isnan(values).any():
            return f"undefined in {int(np.isnan(values).sum())} of {len(values)}"
        sd = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        return f"{values.mean():.3f}{sd} ({len(values)})"

    def _values(self, metric: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        found = (cell.metric(metric) for cell in self.cells)
        return np.array([value for value in found if value is not None], dtype=np.float64)


def over_seeds(cells: Sequence[RecordedCell]) -> list[OverSeeds]:
    """Take together the cells that differ in seeds alone, in the order they first occur."""
    blocks = defaultdict(list)
    for cell in cells:
        blocks[_but_seeds(cell)].append(cell)
    together: list[OverSeeds] = []
    for block in blocks.values():
        if len({_seeds(cell) for cell in block}) < len(block):  # something else differs too: a file's content
            together += [OverSeeds([cell], cell) for cell in block]
        else:
            together.append(OverSeeds(block, _merged(block)))
    return together


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _but_seeds(cell: RecordedCell) -> frozenset[tuple[str, str]]:
    """Everything that has an effect but seeds."""
    kept = ((key, value) for key, value in cell.config.items() if has_effect(key) and not _is_seed(key))
    return frozenset([*cell.record.choices.items(), *kept])


def _merged(cells: Sequence[RecordedCell]) -> RecordedCell:
    first = cells[0]
    if len(cells) == 1:
        return first
    metrics: dict[str, float] = {}
    for name in first.record.metrics:
        if name.endswith(_ENDS):
            continue
        values = np.array([cell.record.metrics.get(name, np.nan) for cell in cells])
        metrics[name] = float(values.mean())
        if f"{name}_ci_low" in first.record.metrics:
            metrics |= {
                f"{name}_ci_low": float(values.mean() - values.std(ddof=1)),
                f"{name}_ci_high": float(values.mean() + values.std(ddof=1)),
            }
    config = {key: value for key, value in first.config.items() if not _is_seed(key)}
    return RecordedCell(first.folder, replace(first.record, metrics=metrics), config)


def _seeds(cell: RecordedCell) -> frozenset[tuple[str, str]]:
    return frozenset((key, value) for key, value in cell.config.items() if _is_seed(key))
