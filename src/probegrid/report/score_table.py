"""The scores of one cell against each other on the same answers, as a matrix.

Knows cells, and evaluation's paired comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from probegrid.evaluation.paired import Difference, compare_areas, holm, simultaneous_ends
from probegrid.report.cell_tables import identity
from probegrid.report.cells import RecordedCell
from probegrid.report.columns import shown
from probegrid.report.tables import MISSING, Table, difference_text, p_text

_SAME = "same order"
MOST_IN_MATRIX = 12
"""Scores that are each compared with each; more are compared with the probe's own and with `BASELINE` alone."""
BASELINE = "gnll"
"""The score that every other is compared with."""


@dataclass(frozen=True)
class _Compared:
    """The AUROC of one score less that of another, in one cell."""

    difference: Difference
    p_holm: float
    together: tuple[float, float]

    def text(self, sign: int) -> str:
        """With its interval and p-value; turned round where the sign is -1."""
        if self.difference.value == 0 and self.difference.p_value == 1:
            return _SAME
        low, high = sorted(sign * end for end in self.together)
        turned = replace(self.difference, value=sign * self.difference.value, low=low, high=high)
        return f"{difference_text(turned)} p {p_text(self.p_holm)}"


def compared_scores_table(cells: Sequence[RecordedCell], *, seed: int, flips: int = 2000) -> Table | None:
    """A row a cell and a score, a column a score: AUROC of the row less that of the column; None without pairs.

    Args:
        cells: those that ended well.
        seed: of the drawing alone.
        flips: flippings of signs drawn behind each p-value.
    """
    with_others = [cell for cell in cells if cell.other_scores and cell.has_one_scale]
    compared = {
        cell.record.cell: found for cell in with_others if (found := _compared(cell, seed=seed, flips=flips))
    }
    with_others = [cell for cell in with_others if cell.record.cell in compared]
    if not with_others:
        return None
    names = [
        *dict.fromkeys(
            name for cell in with_others for name in _names(cell) if _is_column(name, _names(cell))
        )
    ]
    columns = shown(cells)
    tests = sorted({len(found) for found in compared.values()})
    return Table(
        name="compared_scores",
        caption="Scores of one reading on the same answers: AUROC of the row minus that of the column, 95% intervals "
        f"that hold together, p after Holm over the {' or '.join(map(str, tests))} pairs of scores of the cell.",
        columns=[*columns, "score", *(name.replace("_", " ") for name in names)],
        rows=[
            [
                *map(cell.value, columns),
                row.replace("_", " "),
                *(_entry(compared[cell.record.cell], row, column) for column in names),
            ]
            for cell in with_others
            for row in _names(cell)
        ],
        n_names=len(columns) + 1,
        records=[
            identity(cell, columns) | _record(pair, one)
            for cell in with_others
            for pair, one in compared[cell.record.cell].items()
        ],
    )


def _names(cell: RecordedCell) -> list[str]:
    """The scores of a cell that all its examples have, its probe's own first."""
    own = cell.value("probe")
    return [own, *(name for name in cell.whole_scores if name != own)]


def _is_column(name: str, names: Sequence[str]) -> bool:
    """Whether the others are compared with a score."""
    return len(names) <= MOST_IN_MATRIX or name in (names[0], BASELINE)


def _compared(cell: RecordedCell, *, seed: int, flips: int) -> dict[tuple[str, str], _Compared]:
    """Every two scores of a cell; none where all answers are of one class."""
    own, *names = _names(cell)
    values = {own: cell.values} | {name: cell.other_values[name].to_numpy(dtype=float) for name in names}
    labels, groups = cell.labels, cell.scores["group"].tolist()
    alone = None if len({*groups}) == len(groups) else groups
    pairs = {
        (first, second): compare_areas(
            (labels, values[first]), (labels, values[second]), alone, seed=seed, flips=flips
        )
        for first, second in combinations(values, 2)
        if _is_column(first, [*values]) or _is_column(second, [*values])
    }
    if any(math.isnan(one.value) for one in pairs.values()):
        return {}
    adjusted = holm([one.p_value for one in pairs.values()])
    return {
        pair: _Compared(one, float(p_holm), simultaneous_ends(one, float(p_holm), len(pairs)))
        for (pair, one), p_holm in zip(pairs.items(), adjusted, strict=True)
    }


def _entry(compared: Mapping[tuple[str, str], _Compared], row: str, column: str) -> str:
    if (row, column) in compared:
        return compared[row, column].text(1)
    return compared[column, row].text(-1) if (column, row) in compared else MISSING


def _record(pair: tuple[str, str], one: _Compared) -> dict[str, object]:
    low, high = one.together
    return {
        "first": pair[0],
        "second": pair[1],
        "auroc_value": one.difference.value,
        "auroc_low": one.difference.low,
        "auroc_high": one.difference.high,
        "auroc_p_value": one.difference.p_value,
        "auroc_p_holm": one.p_holm,
        "auroc_low_together": low,
        "auroc_high_together": high,
    }
