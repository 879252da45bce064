"""Rows with named columns, and the reading of their cells.

Knows how a cell becomes a text or a label, and how a row is named in a message.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from probegrid.data.spelling import unspelled
from probegrid.errors import DataError, closest

Row = Mapping[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which JSON can spell and UTF-8 cannot
_TRUE = ("1", "1.0", "true", "yes", "t", "y")
_FALSE = ("0", "0.0", "false", "no", "f", "n")
_SMALLEST_PLAIN, _LARGEST_PLAIN = 1e-7, 1e21
"""Numbers between them are written without an exponent."""


@dataclass(frozen=True)
class Table:
    """The rows of a file or of a split; each is made when asked for, so that a large table costs little."""

    name: str
    """Where the rows come from, for messages."""
    columns: tuple[str, ...]
    """Names of the columns; of JSON rows, those that any of them has."""
    length: int
    """Number of rows."""
    row: Callable[[int], Row]
    """The row at a place, counted from 0."""
    split: str | None = None
    """The split this is; None for a single file."""
    notes: tuple[str, ...] = ()
    """How the file was read, where a reader should know."""

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
            if name not in self.columns and name.partition(".")[0] not in self.columns:
                raise DataError(f"{self.name} has no column '{name}'; {closest(name, self.columns)}. {mend}.")


def from_rows(name: str, rows: Sequence[Row], split: str | None = None, notes: tuple[str, ...] = ()) -> Table:
    """A table of rows in memory.

    Raises:
        DataError: there is no row.
    """
    if not rows:
        raise DataError(f"{name} is empty: it has no row.")
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Table(name, columns, len(rows), rows.__getitem__, split, notes)


def chained(name: str, parts: Sequence[Table], split: str | None = None) -> Table:
    """Tables one after another, each row as its own table makes it, whatever its columns' types are."""
    if len(parts) == 1:
        return parts[0]
    ends = list(itertools.accumulate(map(len, parts)))

    def row(index: int) -> Row:
        part = bisect.bisect_right(ends, index)
        return parts[part].row(index - (ends[part - 1] if part else 0))

    columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Table(name, columns, ends[-1], row, split, notes)


def from_arrow(name: str, rows: Any, split: str | None = None) -> Table:
    """A table over a ``pyarrow.Table``.

    Raises:
        DataError: there is no row.
    """
    if rows.num_rows == 0:
        raise DataError(f"{name} is empty: it has no row.")
    columns = dict(zip(rows.column_names, map(_with_written_floats, rows.columns), strict=True))
    classes = _class_names(rows.schema.metadata)

    def row(index: int) -> Row:
        cells = {}
        for column, values in columns.items():
            try:
                cells[column] = _value(values[index], classes.get(column))
            except (ValueError, OverflowError) as error:  # no UTF-8, or a moment past Python's last
                raise DataError(
                    f"'{column}' in row {index + 1} of {name} cannot be read ({error}); write it as text, or leave "
                    "the column out."
                ) from error
        return cells

    return Table(name, tuple(rows.column_names), rows.num_rows, row, split)


def _with_written_floats(values: Any) -> Any:
    """A column whose short floats are the numbers that were written: 0.1, and not the double nearest to its float32."""
    import pyarrow as pa

    def of(kind: Any, floats: Any) -> Any:
        if pa.types.is_float16(kind) or pa.types.is_float32(kind):
            return floats
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return pa.list_(of(kind.value_type, floats)) if is_list else kind

    written = of(values.type, pa.string())
    return values if written == values.type else values.cast(written).cast(of(values.type, pa.float64()))


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """What the numbers of a column mean by the names that ``datasets`` keeps with it (``ClassLabel``)."""
    info = json.loads((metadata or {}).get(b"huggingface", b"{}")).get("info") or {}
    features = info.get("features") or {}
    return {column: kind["names"] for column, kind in features.items() if "names" in kind}


def _value(scalar: Any, classes: Sequence[str] | None) -> Any:
    """An arrow value as Python's; a class by its name, of which -1 is none, and a map as the object it was."""
    import pyarrow as pa

    value = scalar.as_py()
    if value is None:
        return None
    if classes is not None and isinstance(value, int):
        return classes[value] if value >= 0 else None
    return dict(value) if pa.types.is_map(scalar.type) else value


def cell(row: Row, column: str, where: str) -> Any:
    """The value in ``column``, null included; ``question.stem`` is the stem of the object (or objects) in ``question``.

    Raises:
        DataError: this row has no such column, unlike others.
    """
    return row[column] if column in row else _part(row, column.split("."), f"{where} has no '{column}'; it")


def _part(held: Any, names: Sequence[str], missing: str) -> Any:
    """What lies at names within an object, or an object that was written as a text; in a list, of each of its items."""
    if not names:
        return held
    held = unspelled(held)
    if is_gap(held):
        return None
    if isinstance(held, list):
        return [_part(item, names, missing) for item in held]
    if not isinstance(held, Mapping):
        raise DataError(f"{missing} is no object: {str(held)[:60]!r}.")
    if names[0] not in held:
        raise DataError(f"{missing} has: {', '.join(map(str, held))}.")
    return _part(held[names[0]], names[1:], f"{missing.rpartition(';')[0]}; '{names[0]}'")


def text(value: object, what: str) -> str:
    """A cell as a text, unchanged; a number becomes its digits, a whole one without a point, a day its ISO date.

    Raises:
        DataError: it is neither, or blank; ``what`` names it.
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and _is_finite(value):
        return digits(value)
    if isinstance(value, date):
        return _day(value)
    if isinstance(value, str) and not _is_blank(value) and not _SURROGATE.search(value):
        return value
    raise DataError(f"{what} is {value!r}; a text is expected.")


def digits(number: float | Decimal) -> str:
    """A number as people write it: a whole one without a point, which a gap beside it may have given it."""
    if isinstance(number, int):
        return str(number)
    whole = int(number)
    if not _SMALLEST_PLAIN <= abs(float(number)) < _LARGEST_PLAIN and number:
        return str(number)
    return str(whole) if number == whole else format(Decimal(str(number)), "f")


def _is_finite(number: float | Decimal) -> bool:
    return isinstance(number, int) or math.isfinite(number)  # a large int is no float


def _day(value: date) -> str:
    """A day, or a moment where it is not midnight."""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ")
    return value.isoformat()


def is_gap(value: object) -> bool:
    """Whether a cell holds nothing: null, not-a-number, or white space."""
    if value is None or _is_blank(value):
        return True
    return isinstance(value, float | Decimal) and math.isnan(value)


def texts(value: object, what: str) -> tuple[str, ...]:
    """A cell as texts, gaps and repeats left out: a list, one text, or null.

    Raises:
        DataError: it, or an item of it, is anything else; ``what`` names it.
    """
    items = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(text(item, what) for item in items if not is_gap(item)))


def truth(value: object, what: str) -> bool:
    """A cell as a label: 1 or 0, true or false, yes or no, as a number, a boolean or a text, spaces around or not.

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
