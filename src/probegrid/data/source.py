"""From ``dataset.path`` to tables: a local file, a local folder, a glob, or a hub id.

Knows how a path is told apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from probegrid.data import files, hub
from probegrid.data.table import Table
from probegrid.errors import DataError
from probegrid.schema import DatasetConfig


class PathNotGiven(DataError):
    """A dataset without data of its own, and no path of any."""


def read_splits(
    config: DatasetConfig,
    splits: Iterable[str],
    subset: str | None = None,
    unpack: files.Unpack | None = None,
    records: str | None = None,
) -> Iterator[Table]:
    """Read splits of ``config.path`` in turn: a table a distinct split, or a single one where it is a file.

    Raises:
        DataError: no path is given, or what it names cannot be read.
    """
    path = required_path(config)
    distinct = list(dict.fromkeys(splits))
    if files.is_glob(path):
        yield from _read_globbed(path, distinct, unpack, records)
        return
    if not is_local(path):
        yield from hub.read_splits(path, distinct, subset)
        return
    local = existing(path)
    if local.is_file():
        yield files.read_file(local, unpack, records)
        return
    for split in distinct:
        table = files.read_split(local, split, subset, unpack, records)
        yield table
        if table.split is None:  # of no split: the folder is one table, which is divided
            return


def _read_globbed(
    path: str, splits: list[str], unpack: files.Unpack | None, records: str | None
) -> Iterator[Table]:
    for split in splits:
        table, is_of_splits = files.read_glob(path, split, unpack, records)
        yield table
        if not is_of_splits:
            return


def required_path(config: DatasetConfig) -> str:
    """``config.path`` of a dataset that has no default.

    Raises:
        PathNotGiven: it is null or empty.
    """
    if not config.path:
        name = getattr(config, "layout", None) or type(config).__module__.rpartition(".")[2]
        raise PathNotGiven(
            f"dataset={name} has no data of its own; give yours with dataset.path=<file or folder>."
        )
    return config.path


def is_local(path: str) -> bool:
    """Whether ``path`` is meant as a local one: it exists, starts like one, is a glob, or ends like a data file."""
    if path.startswith(("/", ".", "~")) or files.is_data_file(path):
        return True
    return os.path.exists(path) or files.is_glob(path)


def existing(path: str) -> Path:
    """The local file or folder that ``path`` names.

    Raises:
        DataError: there is none; the closest name in the folder is given.
    """
    local = Path(os.path.expanduser(path))
    if not os.path.exists(local):
        raise files.missing(local)
    return local
