"""Local files, folders and globs as tables.

Knows how a folder names its splits: by the first word of a file's name, by any later one (``mydata_train.jsonl``,
``mydata.dev.jsonl``), or by the folders in it; and what makes several files one split (shards).
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from probegrid.data.formats import (
    SUFFIXES,
    Unpack,
    data_stem,
    data_suffix,
    is_saved,
    read_files,
    read_saved,
)
from probegrid.data.table import Table, from_arrow
from probegrid.errors import DataError, closest

__all__ = [
    "SUFFIXES",
    "Unpack",
    "data_files_in",
    "is_data_file",
    "is_glob",
    "matching",
    "missing",
    "read_file",
    "read_glob",
    "read_split",
    "unknown_split",
]

_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_NUMBERED = re.compile(r"^(part|data|shard|chunk)?[-_.]?\d+", re.IGNORECASE)
_SAME_SPLIT = {
    "dev": "validation",
    "eval": "validation",
    "val": "validation",
    "valid": "validation",
    "training": "train",
    "testing": "test",
}
_SPLITS = ("train", "validation", "test")


def is_data_file(name: str) -> bool:
    """Whether a name ends like a data file's, compressed or not, in any case of the letters."""
    return data_suffix(name) is not None


def is_glob(path: str) -> bool:
    """Whether a path stands for several files (``data/*.jsonl``) and is no file's own name."""
    return any(sign in path for sign in "*?[") and not Path(path).expanduser().exists()


def read_file(path: Path, unpack: Unpack | None = None, records: str | None = None) -> Table:
    """Read a file by its suffix; a JSON object is looked at unless ``unpack`` makes rows of it.

    Raises:
        DataError: an unknown suffix, a malformed or empty file, a file that cannot be opened.
    """
    return read_files([path], str(path), None, unpack, records)


def read_split(
    folder: Path,
    split: str,
    subset: str | None = None,
    unpack: Unpack | None = None,
    records: str | None = None,
) -> Table:
    """Read a split of a folder laid out as a hub repository, an official release, or by ``save_to_disk``.

    Files lie in the folder, in its folder ``data``, in one named as the ``subset``, or in one named as the split. A
    folder of a single file that names no split is that file.

    Raises:
        DataError: no data file, an unknown split, several files for it that are no complete set of shards, or
            a file that cannot be read.
    """
    root = folder / subset if subset and (folder / subset).is_dir() else folder
    if is_saved(root):
        return _saved_split(root, split)
    for place in (root, root / "data"):
        files, folders = (_files_of(place), _split_folders(place)) if place.is_dir() else ([], {})
        named = _paths_of(files, split)
        if named and (
            twin := next((name for name in folders if _canonical(name) == _canonical(split)), None)
        ):
            raise DataError(
                f"{folder} has the split '{split}' as the file {named[0].name} and as the folder {twin}; choose one, "
                f"dataset.path={named[0]} say."
            )
        if files and (named or not folders):
            return _read_chosen(str(folder), files, split, unpack, records)
        if folders:
            return _read_split_folder(folder, folders, split, unpack, records)
    return read_split(_only_below(root), split, None, unpack, records)


def read_glob(
    pattern: str, split: str, unpack: Unpack | None = None, records: str | None = None
) -> tuple[Table, bool]:
    """Read the files that a pattern names: those of the split where their names say splits, else all of them.

    Returns:
        The rows, and whether the files are of splits.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    files = matching(pattern)
    if len({_word(path) for path in files} - {None}) > 1:
        return _read_chosen(pattern, files, split, unpack, records), True
    return read_files(files, pattern, None, unpack, records), False


def matching(pattern: str) -> list[Path]:
    """The data files that a pattern names, in the order of their names.

    Raises:
        DataError: there is none.
    """
    found = sorted(map(Path, glob.glob(str(Path(pattern).expanduser()), recursive=True)))
    files = [path for path in found if path.is_file() and is_data_file(path.name)]
    if not files:
        raise DataError(f"no data file is called like {pattern}; those end in {', '.join(SUFFIXES)}.")
    return files


def unknown_split(source: str, split: str, splits: Sequence[str]) -> DataError:
    """The error for a split that ``source`` does not have."""
    return DataError(
        f"{source} has no split '{split}'; {closest(split, splits)} (dataset.split is evaluated, "
        "dataset.shot_split gives the few-shot examples; the same name for both divides that split)."
    )


def missing(path: Path) -> DataError:
    """The error for a local path that is not there; names what comes closest in its folder."""
    folder = path.parent
    if path.is_symlink():
        return DataError(f"{path} is a link to {os.readlink(path)}, which does not exist.")
    if not folder.is_dir():
        return DataError(f"{path} does not exist: there is no folder {folder}.")
    names = [entry.name for entry in _entries(folder) if entry.is_dir() or is_data_file(entry.name)]
    held = f"in {folder}: {closest(path.name, names)}" if names else f"{folder} holds no data file"
    return DataError(f"{path} does not exist; {held}.")


def _saved_split(folder: Path, split: str) -> Table:
    splits = read_saved(folder)
    if "" in splits:
        return from_arrow(str(folder), splits[""], None)
    name = next((name for name in splits if name == split), None) or next(
        (name for name in splits if _canonical(name) == _canonical(split)), None
    )
    if name is None:
        raise unknown_split(str(folder), split, list(splits))
    return from_arrow(f"{folder} ({split})", splits[name], split)


def _read_chosen(
    source: str, files: list[Path], split: str, unpack: Unpack | None, records: str | None
) -> Table:
    if len(files) == 1 and _word(files[0]) is None and not _is_called(files[0], split):
        return read_files(files, str(files[0]), None, unpack, records)
    paths = _paths_of(files, split)
    if not paths and not any(map(_word, files)):
        raise DataError(
            f"{source} has no split '{split}', and none of its files says a split ({_names(files)}); all of them are "
            f"read as one with dataset.path='{files[0].parent}/*', one with dataset.path={files[0]} say."
        )
    if not paths:
        raise unknown_split(source, split, list(dict.fromkeys(_word(path) or _first(path) for path in files)))
    _check_shards(source, split, paths)
    return read_files(paths, f"{source} ({split})", split, unpack, records)


def _read_split_folder(
    folder: Path, folders: dict[str, Path], split: str, unpack: Unpack | None, records: str | None
) -> Table:
    """A split that is a folder of its own; its files are one split whatever they are called."""
    place = folders.get(split) or next(
        (entry for name, entry in folders.items() if _canonical(name) == _canonical(split)), None
    )
    if place is None:
        raise unknown_split(str(folder), split, list(folders))
    if is_saved(place):
        return _saved_split(place, split)
    files = _files_of(place)
    if not all(_NUMBERED.match(data_stem(path.name)) for path in files):
        _check_shards(str(folder), split, files)
    return read_files(files, f"{folder} ({split})", split, unpack, records)


def _paths_of(files: Sequence[Path], split: str) -> list[Path]:
    """The files of a split: those called so, else those whose names begin so, else those that have the word."""
    wanted = _canonical(split)
    tests: tuple[Callable[[Path], bool], ...] = (
        lambda path: _is_called(path, split),
        lambda path: _canonical(_first(path)) == wanted,
        lambda path: _word(path) == wanted,
    )
    return next((found for test in tests if (found := [path for path in files if test(path)])), [])


def _is_called(path: Path, split: str) -> bool:
    return _canonical(_SHARD.sub("", data_stem(path.name))) == _canonical(split)


def _first(path: Path) -> str:
    return re.split(r"[-_.]", path.name)[0]


def _word(path: Path) -> str | None:
    """The split that a file's name says anywhere: by its first word that is a split's; None where none is."""
    words = map(_canonical, re.split(r"[^A-Za-z]+", data_stem(path.name)))
    return next((word for word in words if word in _SPLITS), None)


def _canonical(split: str) -> str:
    lowered = split.lower()
    known = _SAME_SPLIT.get(lowered, lowered)
    return known if known in _SPLITS else split


def _split_folders(root: Path) -> dict[str, Path]:
    below = [entry for entry in _entries(root) if entry.is_dir() and (_files_of(entry) or is_saved(entry))]
    return {entry.name: entry for entry in below if _canonical(entry.name) in _SPLITS}


def _only_below(root: Path) -> Path:
    """The one folder below that holds data."""
    below = [entry for entry in _entries(root) if entry.is_dir() and _holds_data(entry)]
    if len(below) == 1:
        return below[0]
    if below:
        raise DataError(
            f"{root} holds several data sets ({', '.join(entry.name for entry in below)}); "
            f"choose one, dataset.path={below[0]} say."
        )
    raise DataError(f"{root} holds no data file; those end in {', '.join(SUFFIXES)}.")


def _holds_data(folder: Path) -> bool:
    return bool(_files_of(folder) or _split_folders(folder) or is_saved(folder))


def data_files_in(folder: Path) -> list[Path]:
    """The data files that lie in a folder itself, by name.

    Raises:
        DataError: it cannot be listed.
    """
    return _files_of(folder)


def _files_of(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if is_data_file(entry.name) and entry.is_file()]


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name; what is hidden is another program's."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error


def _names(files: Sequence[Path], most: int = 5) -> str:
    more = f" and {len(files) - most} more" if len(files) > most else ""
    return ", ".join(path.name for path in files[:most]) + more


def _check_shards(source: str, split: str, paths: list[Path]) -> None:
    stems = [data_stem(path.name) for path in paths]
    if len(paths) == 1 and not _SHARD.search(stems[0]):
        return
    shards = [match for stem in stems if (match := _SHARD.search(stem))]
    if len(shards) < len(paths) or len({data_suffix(path.name) for path in paths}) > 1:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"{source} has several files for the split '{split}' ({names}); "
            f"choose one, dataset.path={paths[0]} say."
        )
    totals = sorted({int(match.group(2)) for match in shards})
    total = totals[0]
    if len(totals) > 1:
        raise DataError(
            f"{source} has the split '{split}' in sets of {' and of '.join(map(str, totals))} files; "
            "remove all but one."
        )
    if len(shards) != total:
        raise DataError(
            f"{source} has {len(shards)} of the {total} files of the split '{split}'; fetch the others too."
        )
