"""Readings on disk: content-addressed folders of parts, each written whole or not at all.

Knows folders, JSON and Arrow tables.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.disk import atomic, disk_errors
from probegrid.errors import StoreError

if TYPE_CHECKING:
    import pyarrow as pa


LEFTOVER_AGE_S = 3600
"""A part is written in seconds; a temporary file of this age belongs to no living writer."""


def key_of(description: Mapping[str, Any]) -> str:
    """A short name for what a JSON-able description says: the first 16 hex digits of its SHA-256."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=False, default=_name)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name(value: object) -> str:
    """An enum by its name."""
    if isinstance(value, Enum):
        return value.name
    raise TypeError(f"{type(value).__name__} has no JSON form")


class Entry:
    """One reading: ``<store>/<kind>/<key>/`` with its description and its parts."""

    def __init__(self, store_dir: str | Path, kind: str, description: Mapping[str, Any]) -> None:
        """Open the entry for this description, making it if it is new.

        Raises:
            StoreError: the folder cannot be written.
        """
        self.key = key_of(description)
        self.folder = Path(store_dir) / kind / self.key
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.folder)
        if not (self.folder / "description.json").exists():
            self.write_json("description.json", description)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        with atomic(self.folder / name) as temporary:
            temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False))

    def read_json(self, name: str) -> Any | None:
        """Read a JSON file; None if it was never written.

        Raises:
            StoreError: it is damaged.
        """
        file = self.folder / name
        if not file.exists():
            return None
        try:
            return json.loads(file.read_text())
        except ValueError as error:
            raise damaged(file, error) from error

    def write_part(self, name: str, table: pa.Table) -> None:
        """Write a part whole or not at all."""
        import pyarrow.parquet as pq

        with atomic(self.folder / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary, write_page_checksum=True)

    def read_parts(self) -> Iterator[pa.Table]:
        """Read every part, in the order of their names.

        Raises:
            StoreError: a part is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in sorted(self.folder.glob("*.parquet")):
            try:
                table = pq.read_table(file, page_checksum_verification=True)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise damaged(file, error) from error
            yield table


def damaged(file: Path, error: Exception) -> StoreError:
    """What to raise where a file of an entry cannot be read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return StoreError(
        f"{file} is damaged ({reason}); delete it and run the same command: only it is made again."
    )


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left unfinished: temporary files that are over an hour old."""
    for file in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > LEFTOVER_AGE_S:
                file.unlink()
