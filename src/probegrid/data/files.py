"""Local files and folders as tables.

Knows file formats (parquet, CSV, JSON lines, a JSON array, an official release's JSON object) and how a folder names
its splits.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probegrid.data.table import Row, Table, from_arrow, from_rows
from probegrid.errors import DataError, closest

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")

Unpack = Callable[[dict[str, Any]], list[Row]]
"""Makes rows of an official release, a single JSON object; raises KeyError or TypeError on another layout."""

_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_SAME_SPLIT = {"dev": "validation", "val": "validation", "valid": "validation"}


def read_file(path: Path, unpack: Unpack | None = None) -> Table:
    """Read a file by its suffix; a JSON object is one row unless ``unpack`` makes rows of it.

    Raises:
        DataError: an unknown suffix, a malformed or empty file, a file that cannot be opened.
    """
    return _read([path], str(path), None, unpack)


def read_split(folder: Path, split: str, subset: str | None = None, unpack: Unpack | None = None) -> Table:
    """Read a split of a folder laid out as a hub repository or an official release.

    A file's split is the first word of its name (``train.parquet``, ``validation-00000-of-00002.parquet``,
    ``dev-v1.1.json``); files lie in the folder, in its folder ``data``, or in one named as the ``subset``.

    Raises:
        DataError: no data file, an unknown split, several files for it that are no complete set of shards, or
            a file that cannot be read.
    """
    splits: dict[str, list[Path]] = defaultdict(list)
    for path in _data_files(folder, subset):
        splits[_canonical(re.split(r"[-_.]", path.name)[0])].append(path)
    paths = splits.get(_canonical(split))
    if not paths:
        raise unknown_split(str(folder), split, list(splits))
    _check_shards(folder, split, paths)
    return _read(paths, f"{folder} ({split})", split, unpack)


def unknown_split(source: str, split: str, splits: list[str]) -> DataError:
    """The error for a split that ``source`` does not have."""
    return DataError(
        f"{source} has no split '{split}'; {closest(split, splits)} (dataset.split is evaluated, "
        "dataset.shot_split gives the few-shot examples; the same name for both divides that split)."
    )


def missing(path: Path) -> DataError:
    """The error for a local path that is not there; names what comes closest in its folder."""
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"{path} does not exist: there is no folder {folder}.")
    names = [entry.name for entry in _entries(folder) if entry.is_dir() or entry.suffix in SUFFIXES]
    held = f"in {folder}: {closest(path.name, names)}" if names else f"{folder} holds no data file"
    return DataError(f"{path} does not exist; {held}.")


def _data_files(folder: Path, subset: str | None) -> list[Path]:
    root = folder / subset if subset and (folder / subset).is_dir() else folder
    for place in (root, root / "data"):
        if place.is_dir() and (files := _files_of(place)):
            return files
    below = [entry for entry in _entries(root) if entry.is_dir() and _files_of(entry)]
    if len(below) == 1:
        return _files_of(below[0])
    if below:
        raise DataError(
            f"{root} holds several data sets ({', '.join(entry.name for entry in below)}); "
            f"choose one, dataset.path={below[0]} say."
        )
    raise DataError(f"{root} holds no data file; those end in {', '.join(SUFFIXES)}.")


def _files_of(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.suffix in SUFFIXES and entry.is_file()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error


def _canonical(split: str) -> str:
    return _SAME_SPLIT.get(split, split)


def _check_shards(folder: Path, split: str, paths: list[Path]) -> None:
    if len(paths) == 1 and not _SHARD.search(paths[0].stem):
        return
    shards = [match for path in paths if (match := _SHARD.search(path.stem))]
    if len(shards) < len(paths) or len({path.suffix for path in paths}) > 1:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"{folder} has several files for the split '{split}' ({names}); "
            f"choose one, dataset.path={paths[0]} say."
        )
    total = int(shards[0].group(2))
    if len(shards) != total:
        raise DataError(
            f"{folder} has {len(shards)} of the {total} files of the split '{split}'; fetch the others too."
        )


def _read(paths: list[Path], name: str, split: str | None, unpack: Unpack | None) -> Table:
    suffix = paths[0].suffix
    try:
        if suffix == ".parquet":
            return from_arrow(name, _read_parquet(paths), split)
        if suffix == ".csv":
            return from_rows(name, [row for path in paths for row in _read_csv(path)], split)
        if suffix in (".json", ".jsonl"):
            return from_rows(name, [row for path in paths for row in _read_json(path, unpack)], split)
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
    raise DataError(f"{name} is in no format that can be read; a data file ends in {', '.join(SUFFIXES)}.")


def _read_parquet(paths: list[Path]) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return pyarrow.concat_tables([parquet.read_table(path) for path in paths])
    except pyarrow.ArrowException as error:
        raise DataError(f"{paths[0]} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _read_csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows: list[Row] = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: the number of fields is not that of the header "
                        f"({len(reader.fieldnames or ())}); quote a field that holds a comma."
                    )
                rows.append(row)
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.reader.line_num}: malformed CSV ({error}).") from error
        return rows


def _read_json(path: Path, unpack: Unpack | None) -> list[Row]:
    content = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl" and not content.lstrip().startswith("["):
        return _json_lines(path, content)
    try:
        parsed = json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _json_lines(path, content)
        raise DataError(f"{path}, line {error.lineno}: malformed JSON ({error.msg}).") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: {_too_much(error)}.") from error
    if isinstance(parsed, dict):
        return _unpacked(path, parsed, unpack) if unpack else [parsed]
    if not isinstance(parsed, list) or not all(isinstance(row, dict) for row in parsed):
        raise DataError(f"{path} holds no rows: a list of JSON objects is expected.")
    return parsed


def _too_much(error: RecursionError | ValueError) -> str:
    """What JSON allows and Python does not read."""
    if isinstance(error, RecursionError):
        return "lists or objects are nested too deep to be read; flatten them"
    return "a number has more digits than can be read; write it as text"


def _unpacked(path: Path, release: dict[str, Any], unpack: Unpack) -> list[Row]:
    try:
        return unpack(release)
    except (KeyError, TypeError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is not laid out as the official release: {reason}.") from error


def _json_lines(path: Path, content: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: malformed JSON ({error.msg}).") from error
        except (RecursionError, ValueError) as error:
            raise DataError(f"{path}, line {number}: {_too_much(error)}.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a JSON object is expected, not {line.strip()[:40]!r}.")
        rows.append(row)
    return rows
