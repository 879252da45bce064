"""What tells cells apart: the groups and keys whose values vary, and a short name for each cell by them.

Knows choices and flattened configs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probegrid.report.cells import GROUPS, RecordedCell
from probegrid.tracking.naming import has_effect

_LONG = (
    24  # characters; a key with longer values is shown only where no shorter one tells the same cells apart
)


def varying(cells: Sequence[RecordedCell]) -> tuple[str, ...]:
    """The groups whose choice differs between cells, and the fewest keys that tell apart cells of equal choices.

    Of keys that tell the same cells apart, the one with short values and the shorter path is taken:
    ``prompt.num_few_shot`` rather than ``prompt.instruction``, ``seed`` rather than ``dataset.seed``. Cells that
    no key tells apart (a file whose content changed) differ in their own ``key``.
    """
    columns = [group for group in GROUPS if len({cell.value(group) for cell in cells}) > 1]
    for key in (*sorted(_keys(cells), key=lambda key: _preference(key, cells)), "key"):
        told_apart = {tuple(cell.value(name) for name in columns) for cell in cells}
        with_key = {tuple(cell.value(name) for name in (*columns, key)) for cell in cells}
        if len(with_key) > len(told_apart):
            columns.append(key)
    return tuple(columns)


def shown(cells: Sequence[RecordedCell]) -> tuple[str, ...]:
    """The columns of a table of cells: those that vary; model, dataset and probe where nothing does."""
    return varying(cells) or ("model", "dataset", "probe")


def common(cells: Sequence[RecordedCell], columns: Iterable[str]) -> dict[str, str]:
    """The choices that all cells share and no column shows."""
    return {
        group: cells[0].value(group)
        for group in GROUPS
        if cells and group not in columns and _same(cells, group)
    }


def label(cell: RecordedCell, columns: Iterable[str]) -> str:
    """A short name: choices as they are, a key with its last part (``num_few_shot=5``)."""
    return " ".join(
        cell.value(name) if name in GROUPS else f"{name.rpartition('.')[2]}={cell.value(name)}"
        for name in columns
    )


def _same(cells: Sequence[RecordedCell], name: str) -> bool:
    return len({cell.value(name) for cell in cells}) == 1


def _keys(cells: Sequence[RecordedCell]) -> list[str]:
    keys = dict.fromkeys(key for cell in cells for key in cell.config if has_effect(key))
    return [key for key in keys if not _same(cells, key)]


def _preference(key: str, cells: Sequence[RecordedCell]) -> tuple[bool, int]:
    return max(len(cell.value(key)) for cell in cells) > _LONG, key.count(".")
