"""File formats: from the bytes of a file to its rows, nothing of their meaning decided.

Knows parquet and arrow (pyarrow reads them), folders of ``datasets.save_to_disk`` (``datasets`` does), delimited text,
JSON lines and the ways in which a JSON document holds a table, and what a file's name says: its format, in any case of
the letters, and a compression behind it. What two readers could read differently (a column that occurs twice, a line
with a field too many) is refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from probegrid.data.table import Row, Table, chained, from_arrow, from_rows
from probegrid.errors import DataError

SUFFIXES = (
    ".parquet", ".jsonl", ".json", ".csv", ".tsv", ".ndjson", ".jsonlines", ".arrow", ".feather", ".tab", ".pq",
)  # fmt: skip
"""What a data file's name ends in, a compression left out."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd", ".lz4": "lz4"}
"""Endings of compressed files, and pyarrow's names for what they are."""

Unpack = Callable[[dict[str, Any]], list[Row]]
"""Makes rows of an official release, a single JSON object; raises KeyError or TypeError on another layout."""


class NoRelease(Exception):
    """Raised by an `Unpack` that leaves any other object to be read as one's own file."""


_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_OTHER_DELIMITERS = "\t;|"
_ARROW = (".parquet", ".pq", ".arrow", ".feather")
_POINTER = b"version https://git-lfs.github.com/spec/"
_FEWEST_KEYED = 2


def data_suffix(name: str) -> str | None:
    """The format's ending in lower case (``.jsonl`` of ``Mine.JSONL.gz``); None for no data file's name."""
    stem, _ = _without_compression(name.lower())
    suffix = Path(stem).suffix
    return suffix if suffix in SUFFIXES else None


def data_stem(name: str) -> str:
    """The name of a data file without the endings that say how it is written: ``cities`` of ``cities.csv.gz``."""
    suffix = data_suffix(name)
    stem, _ = _without_compression(name)
    return name if suffix is None else stem[: -len(suffix)]


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``datasets.save_to_disk``."""
    saved = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return saved or (folder / "dataset_dict.json").is_file()


def read_saved(folder: Path) -> dict[str, Any]:
    """The splits of a folder of ``datasets.save_to_disk`` as arrow tables; a lone dataset is called by nothing.

    Raises:
        DataError: it is damaged or incomplete.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{folder} cannot be read as a saved dataset: {_first_line(error)}.") from error
    named = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    return {name: part.with_format("arrow")[:] for name, part in named.items()}


def read_files(
    paths: list[Path],
    name: str,
    split: str | None = None,
    unpack: Unpack | None = None,
    records: str | None = None,
    header: Sequence[str] = (),
) -> Table:
    """The rows of files of one format, one after another.

    Args:
        paths: at least one; their string and number types may differ.
        name: of all of them, for messages.
        split: which they are; None: none in particular.
        unpack: makes rows of a JSON object; None: the object is looked at.
        records: where in a JSON object the list of rows is (``data.questions``); None: none was named.
        header: names of the columns of delimited text whose first line has none of them, and is a row.

    Raises:
        DataError: an unknown format, a malformed or empty file, a file that cannot be opened.
    """
    try:
        parts = [_read(path, name, split, unpack, records, header) for path in paths]
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or _first_line(error)}.") from error
    whole = chained(name, parts, split)
    if not len(whole):
        raise DataError(f"{name} is empty: it has no row.")
    return whole


def _read(
    path: Path,
    name: str,
    split: str | None,
    unpack: Unpack | None,
    records: str | None,
    header: Sequence[str],
) -> Table:
    suffix = data_suffix(path.name)
    if suffix is None:
        raise DataError(
            f"{name} is in no format that can be read; a data file ends in {', '.join(SUFFIXES)} "
            f"(and {', '.join(COMPRESSIONS)} behind it)."
        )
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise DataError(f"{path} is Git LFS's pointer to the data; `git lfs pull` fetches them.")
    if records and (suffix in _DELIMITERS or suffix in _ARROW):
        raise DataError(f"dataset.records={records} is of JSON files, and {path} is none; leave it out.")
    if suffix in _ARROW:
        return from_arrow(name, _read_arrow(path, suffix), split)
    text = _decoded(_bytes(path))
    if "\0" in text:
        raise DataError(f"{path} holds NUL bytes, as UTF-16 without its mark does; save it as UTF-8.")
    if suffix in _DELIMITERS:
        rows, notes = _read_delimited(path, text, _DELIMITERS[suffix], header)
        return from_rows(name, rows, split, notes)
    return from_rows(name, _read_json(path, text, suffix, unpack, records), split)


def _without_compression(name: str) -> tuple[str, str | None]:
    for ending, codec in COMPRESSIONS.items():
        if name.lower().endswith(ending):
            return name[: -len(ending)], codec
    return name, None


def _bytes(path: Path) -> bytes:
    """The content of a file, decompressed where its name says that it is compressed."""
    with path.open("rb") as file:
        raw = file.read()
    codec = _without_compression(path.name)[1]
    if codec is None:
        return raw
    import pyarrow as pa

    try:
        content: bytes = pa.CompressedInputStream(pa.BufferReader(raw), codec).read()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as {codec}: {_first_line(error)}.") from error
    return content


def _decoded(raw: bytes) -> str:
    """Text by its byte order mark; UTF-8 without one."""
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # before UTF-16's, which one begins with
        return raw.decode("utf-32")
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    return raw.decode("utf-8-sig")


def _read_arrow(path: Path, suffix: str) -> Any:
    import pyarrow as pa
    from pyarrow import feather, ipc, parquet

    what = "parquet" if suffix in (".parquet", ".pq") else "arrow"
    try:
        source = pa.BufferReader(_bytes(path)) if _without_compression(path.name)[1] else None
        if what == "parquet":
            with parquet.ParquetFile(source or path) as file:  # read_table would add a partition's columns
                table = file.read()
        elif source is None:
            table = _read_ipc(ipc, feather, pa.memory_map(str(path)))
        else:
            table = _read_ipc(ipc, feather, source)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as {what}: {_first_line(error)}") from error
    _refuse_repeated(str(path), table.column_names)
    return table


def _read_ipc(ipc: Any, feather: Any, source: Any) -> Any:
    """An arrow stream, as ``datasets`` writes it, or an arrow file, which is feather's second version too."""
    import pyarrow as pa

    try:
        return ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return feather.read_table(source)


def _read_delimited(
    path: Path, text: str, delimiter: str, names: Sequence[str]
) -> tuple[list[Row], tuple[str, ...]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # else a cell of 131 kB ends the reading
    notes: tuple[str, ...] = ()
    first = text.partition("\n")[0]
    if (
        not names
        and delimiter not in first
        and (other := next((one for one in _OTHER_DELIMITERS if one in first), None))
    ):
        delimiter, notes = other, (f"the fields of {path.name} are divided by {other!r}",)
    try:
        return list(_records(path, text, delimiter, csv.QUOTE_MINIMAL, names)), notes
    except DataError:
        # tab-separated text that was never quoted may begin a cell with a quotation mark
        if delimiter != "\t":
            raise
        try:
            rows = list(_records(path, text, delimiter, csv.QUOTE_NONE, names))
        except DataError:
            rows = []
        if not rows:
            raise
        return rows, (*notes, f"the quotation marks of {path.name} are part of its cells")


def _records(path: Path, text: str, delimiter: str, quoting: Any, names: Sequence[str]) -> Iterable[Row]:
    reader = csv.reader(
        io.StringIO(text, newline=""), strict=True, delimiter=delimiter, quoting=quoting,
        skipinitialspace=_is_spaced(text, delimiter),
    )  # fmt: skip
    try:
        first = next(reader, [])
        header = [name.strip() for name in first]
        rows: Iterable[list[str]] = reader
        if names and {name.lower() for name in header}.isdisjoint(names[:1]):
            header, rows = list(names), itertools.chain([first], reader)
        _refuse_repeated(str(path), header)
        for fields in rows:
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: the number of fields is not that of the header "
                    f"({len(header)}); quote a field that holds a {_SEPARATOR_NAMES.get(delimiter, delimiter)}."
                )
            yield {name: field for name, field in zip(header, fields, strict=True) if name}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: malformed CSV ({error}).") from error


def _is_spaced(text: str, delimiter: str) -> bool:
    """Whether spaces stand behind delimiters for the eye: in the header, or before a quotation mark that opens."""
    sign = re.escape(delimiter)
    return re.search(rf"\A[^\r\n\"]*{sign} |{sign} +\"[^\"\r\n{sign}]", text) is not None


_SEPARATOR_NAMES = {",": "comma", "\t": "tab", ";": "semicolon"}


def _refuse_repeated(name: str, columns: Iterable[str]) -> None:
    counts = Counter(column for column in columns if column)
    if repeated := [column for column, count in counts.items() if count > 1]:
        places = [str(place) for place, column in enumerate(columns, 1) if column == repeated[0]]
        raise DataError(
            f"{name} has {len(places)} columns named '{repeated[0]}' (columns {' and '.join(places)}); rename one: "
            f"answers in several columns are read with dataset.answer_columns=[{repeated[0]},<other name>]."
        )


def _read_json(path: Path, text: str, suffix: str, unpack: Unpack | None, records: str | None) -> list[Row]:
    if not text.strip():
        return []
    if suffix != ".json" and not records and not text.lstrip().startswith("["):
        return _json_lines(path, text)
    try:
        parsed = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            if records:
                raise DataError(
                    f"{path} holds an object a line, and dataset.records={records} is of one object for all rows; "
                    f"parts of each line are read by dataset.question_column={records}.<name> and the like."
                ) from error
            return _json_lines(path, text)
        raise DataError(f"{path}, line {error.lineno}: malformed JSON ({error.msg}).") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: {_too_much(error)}.") from error
    if records:
        parsed = _inside(path, parsed, records)
    if isinstance(parsed, dict):
        return _unpacked(path, parsed, None if records else unpack)
    if not isinstance(parsed, list) or not all(isinstance(row, dict) for row in parsed):
        raise DataError(f"{path} holds no rows: a list of JSON objects is expected.")
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a name that stands twice, of which Python would forget the first, is refused."""
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen and seen[name] != value:
                raise ValueError(f"twice '{name}'")
            seen[name] = value
    return made


def _inside(path: Path, parsed: Any, records: str) -> Any:
    """What stands at ``dataset.records`` in a JSON document."""
    found = parsed
    for name in records.split("."):
        if not isinstance(found, dict) or name not in found:
            held = ", ".join(map(str, found)) if isinstance(found, dict) else f"a {type(found).__name__}"
            raise DataError(f"{path} has nothing at dataset.records={records}: there is {held or 'nothing'}.")
        found = found[name]
    return found


def _rows_of_object(path: Path, parsed: dict[str, Any]) -> list[Row]:
    """The rows that a JSON object holds: one itself, columns, rows by their ids, or pandas' other layouts."""
    values = list(parsed.values())
    if {"columns", "data"} <= parsed.keys() <= {"columns", "index", "data"} and _is_split(parsed):
        return _rows_of_split(path, list(map(str, parsed["columns"])), parsed["data"])
    if parsed.keys() == {"schema", "data"} and _is_rows(parsed["data"]):  # pandas, orient="table"
        rows: list[Row] = parsed["data"]
        return rows
    if values and all(isinstance(value, dict) and value for value in values):
        return _rows_of_nested(parsed)
    if found := [".".join(where) for where in _lists_of_rows(parsed)]:
        keys = " or ".join(f"dataset.records={where}" for where in found)
        raise DataError(f"{path} holds one JSON object, and its rows lie inside it; name them with {keys}.")
    if len(values) > 1 and all(isinstance(value, list) for value in values):
        if len({len(value) for value in values}) == 1:
            return [dict(zip(parsed, row, strict=True)) for row in zip(*values, strict=True)]
        raise DataError(
            f"{path} holds columns of different lengths: "
            f"{', '.join(f'{name} {len(value)}' for name, value in parsed.items())}."
        )
    return [parsed]


def _is_split(parsed: dict[str, Any]) -> bool:
    columns, data = parsed["columns"], parsed["data"]
    return isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data)


def _rows_of_split(path: Path, columns: list[str], data: list[list[Any]]) -> list[Row]:
    """The rows of pandas' ``orient="split"``."""
    _refuse_repeated(str(path), columns)
    if odd := next((place for place, row in enumerate(data, 1) if len(row) != len(columns)), None):
        raise DataError(f"row {odd} of {path} does not have a cell for each of the {len(columns)} columns.")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _rows_of_nested(parsed: dict[str, dict[str, Any]]) -> list[Row]:
    """Columns by the row's place, as pandas writes them, or rows by their ids."""
    inner = list(parsed.values())
    places = list(dict.fromkeys(place for column in inner for place in column))
    if all(_is_place(place) for place in places) and not all(map(_is_place, parsed)):
        return [{name: column.get(place) for name, column in parsed.items()} for place in places]
    shared = set(places).intersection(*inner)
    if len(parsed) < _FEWEST_KEYED or not shared:
        return [parsed]
    return [row if "id" in row else {"id": name, **row} for name, row in parsed.items()]


def _is_place(name: str) -> bool:
    return re.fullmatch(r"\d+", name) is not None


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _lists_of_rows(parsed: Mapping[str, Any], depth: int = 2) -> list[tuple[str, ...]]:
    """Where lists of objects lie; an object that has a question beside them is a row itself."""
    if any(isinstance(parsed.get(name), str) for name in ("question", "statement", "Question")):
        return []
    found: list[tuple[str, ...]] = []
    for name, value in parsed.items():
        if _is_rows(value):
            found.append((name,))
        elif isinstance(value, Mapping) and depth > 1:
            found += [(name, *where) for where in _lists_of_rows(value, depth - 1)]
    return found


def _too_much(error: RecursionError | ValueError) -> str:
    """What JSON allows and Python does not read, or what no two readers agree on."""
    if isinstance(error, RecursionError):
        return "lists or objects are nested too deep to be read; flatten them"
    if str(error).startswith("twice "):
        return f"an object has {error} with different values; rename one"
    return "a number has more digits than can be read; write it as text"


def _unpacked(path: Path, release: dict[str, Any], unpack: Unpack | None) -> list[Row]:
    if unpack is None:
        return _rows_of_object(path, release)
    try:
        rows = unpack(release)
    except NoRelease:
        return _rows_of_object(path, release)
    except (KeyError, TypeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is not laid out as the official release: {reason}.") from error
    if not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"{path} is not laid out as the official release: a row is no object.")
    return rows


def _json_lines(path: Path, content: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: malformed JSON ({error.msg}).") from error
        except (RecursionError, ValueError) as error:
            raise DataError(f"{path}, line {number}: {_too_much(error)}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a JSON object is expected, not {line.strip()[:40]!r}.")
        rows.append(row)
    return rows


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
