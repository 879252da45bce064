"""Rows with named columns, and the reading of their cells.

Knows how a cell becomes a text or a label, and how a row is named in a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probegrid.errors import DataError, closest

Row = Mapping[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can spell and UTF-8 cannot
_TRUE = ("1", "1.0", "true")
_FALSE = ("0", "0.0", "false")


@dataclass(frozen=True)
class Table:
    """The rows of a file or of a split; each is made when asked for, so that a large table costs little."""

    name: str
    """Where the rows come from, for messages."""
    columns: tuple[str, ...]
    """Names of the columns; of JSON rows, those of the first one."""
    length: int
    """Number of rows."""
    row: Callable[[int], Row]
    """The row at a place, counted from 0."""
    split: str | None = None
    """The split this is; None for a single file."""

    def __len__(self) -> int:
        return self.length

    def where(self, index: int) -> str:
        """How a message names a row; counted from 1."""
        return f"row {index + 1} of {self.name}"

    def row_id(self, index: int) -> str:
        """An id for a row that has none of its own: its place (from 1), which does not depend on the path."""
        return f"{self.split or 'row'}-{index + 1}"

    def require(self, names: Iterable[str], mend: str) -> None:
        """Check that the columns are there; ``mend`` tells how to map others onto them.

        Raises:
            DataError: a column is missing.
        """
        for name in names:
            if name not in self.columns:
                raise DataError(f"{self.name} has no column '{name}'; {closest(name, self.columns)}. {mend}.")


def from_rows(name: str, rows: Sequence[Row], split: str | None = None) -> Table:
    """A table of rows in memory.

    Raises:
        DataError: there is no row.
    """
    if not rows:
        raise DataError(f"{name} is empty: it has no row.")
    return Table(name, tuple(rows[0]), len(rows), rows.__getitem__, split)


def from_arrow(name: str, rows: Any, split: str | None = None) -> Table:
    """A table over a ``pyarrow.Table``.

    Raises:
        DataError: there is no row.
    """
    if rows.num_rows == 0:
        raise DataError(f"{name} is empty: it has no row.")

    def row(index: int) -> Row:
        cells: dict[str, Any] = rows.slice(index, 1).to_pylist()[0]
        return cells

    return Table(name, tuple(rows.column_names), rows.num_rows, row, split)


def cell(row: Row, column: str, where: str) -> Any:
    """The value in ``column``, null included.

    Raises:
        DataError: this row has no such column, unlike the first one.
    """
    if column not in row:
        raise DataError(f"{where} has no '{column}'; it has: {', '.join(row)}.")
    return row[column]


def text(value: object, what: str) -> str:
    """A cell as a text, unchanged; a number becomes its digits.

    Raises:
        DataError: it is neither, or blank; ``what`` names it.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and not _is_blank(value) and not _SURROGATE.search(value):
        return value
    raise DataError(f"{what} is {value!r}; a text is expected.")


def texts(value: object, what: str) -> tuple[str, ...]:
    """A cell as texts, blank ones and repeats left out: a list, one text, or null.

    Raises:
        DataError: it, or an item of it, is anything else; ``what`` names it.
    """
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(dict.fromkeys(text(item, what) for item in items if not _is_blank(item)))


def truth(value: object, what: str) -> bool:
    """A cell as a label: 1 or 0, true or false, as a number, a boolean or a text.

    Raises:
        DataError: it is anything else; ``what`` names it.
    """
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise DataError(
            f"{what} is {value!r}; a label is 1 or true for a true statement, 0 or false for a false one."
        )
    return word in _TRUE


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not value.strip()
