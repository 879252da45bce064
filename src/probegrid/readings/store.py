"""Readings on disk: content-addressed folders of parts, each written whole or not at all and named by its content.

An entry is everything that was read of one model in one way; its rows are known by what was read (the digest of a
prompt's or a passage's tokens), so that whoever asks for more of them reads only what is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.disk import (
    DAMAGED_SUFFIX,
    atomic,
    content_name,
    disk_errors,
    remove_temporaries,
    set_aside,
    unreadable,
)
from probegrid.errors import StoreError
from probegrid.readings.claims import Claims

if TYPE_CHECKING:
    import pyarrow as pa


DESCRIPTION_FILE = "description.json"


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
        self.damage: list[str] = []
        """A sentence for each file that was found damaged and set aside."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(self.folder)
        self._describe(description)

    def _describe(self, description: Mapping[str, Any]) -> None:
        """Write down what the entry is of, where that is not written yet or was damaged."""
        written = self.read_json(DESCRIPTION_FILE)
        if isinstance(written, dict) and key_of(written) == self.key:
            return
        if written is not None:
            self.set_aside(self.folder / DESCRIPTION_FILE, "it says what another key stands for")
        self.write_json(DESCRIPTION_FILE, description)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        with atomic(self.folder / name) as temporary:
            temporary.write_text(json.dumps(value, ensure_ascii=False))

    def read_json(self, name: str) -> Any | None:
        """Read a JSON file; None if it was never written, or is no JSON, in which case it is set aside."""
        file = self.folder / name
        try:
            return json.loads(file.read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(file, error) from error
        except (RecursionError, ValueError) as error:
            self.set_aside(file, str(error))
            return None

    def write_part(self, table: pa.Table) -> None:
        """Write a part whole or not at all, under the name of its content."""
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        content = buffer.getvalue()
        with atomic(self.folder / f"part-{content_name(content)}.parquet") as temporary:
            temporary.write_bytes(content)

    def read_parts(self, columns: Sequence[str]) -> list[pa.Table]:
        """Read every part that is whole; one that is damaged is set aside, so that its rows are missing.

        Args:
            columns: those that a part has; one without them is damaged.

        Raises:
            StoreError: a part may not be read.
        """
        return [table for _, table in self._parts(columns)]

    def look(self, columns: Sequence[str], seen: set[str]) -> Iterator[dict[str, Any]]:
        """The rows of parts that were not looked at yet.

        Args:
            columns: those that are wanted.
            seen: names of the parts that were; those that are now join them.

        Raises:
            StoreError: a part may not be read.
        """
        for file, table in self._parts(columns, frozenset(seen)):
            seen.add(file.name)
            yield from table.select(list(columns)).to_pylist()

    def merge(self, columns: Sequence[str]) -> None:
        """Make one part of all, where there are several: inodes are rationed.

        A reader at work meanwhile finds every row in the old parts or in the new one, or in both. Of those who share
        a reading, one does it.
        """
        import pyarrow as pa

        with Claims(self.folder) as claims:
            if not claims.take("merge"):
                return
            parts = list(self._parts(columns))
            if len(parts) < 2:
                return
            self.write_part(pa.concat_tables([table for _, table in parts]))
            for file, _ in parts:
                file.unlink(missing_ok=True)

    def set_aside(self, file: Path, reason: str) -> None:
        """Rename a damaged file, so that what it held is made again, and say so in ``damage``."""
        set_aside(file)
        self.damage.append(
            f"{file} is damaged ({reason}); it is set aside as *{DAMAGED_SUFFIX}, and what it held is made again"
        )

    def _parts(
        self, columns: Sequence[str], without: Collection[str] = ()
    ) -> Iterator[tuple[Path, pa.Table]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file, content in read_verified(self, self.folder, "part-*.parquet", without):
            try:
                table = pq.read_table(io.BytesIO(content))
                missing = set(columns) - set(table.column_names)
            except (pa.ArrowException, OSError, ValueError) as error:
                self.set_aside(file, _first_line(error))
                continue
            if missing:
                self.set_aside(file, f"it has no column {min(missing)}")
                continue
            yield file, table


def read_verified(
    entry: Entry, folder: Path, pattern: str, without: Collection[str] = ()
) -> Iterator[tuple[Path, bytes]]:
    """The content of each file whose name says what it holds; one that holds something else is set aside.

    The folder is listed again until nothing new is found: while some files are read, another process may merge others.

    Args:
        entry: of the folder.
        folder: holds the files.
        pattern: of their names.
        without: names that are passed over.

    Raises:
        StoreError: a file may not be read.
    """
    seen = set(without)
    while files := sorted(file for file in folder.glob(pattern) if file.name not in seen):
        for file in files:
            seen.add(file.name)
            try:
                content = file.read_bytes()
            except FileNotFoundError:  # merged with others meanwhile
                continue
            except OSError as error:
                raise unreadable(file, error) from error
            if content_name(content) == file.stem.removeprefix("part-"):
                yield file, content
            else:
                entry.set_aside(file, "its checksum differs")


def damaged(file: Path, error: Exception) -> StoreError:
    """What to raise where a file that nothing can take the place of cannot be read."""
    return StoreError(
        f"{file} is damaged ({_first_line(error)}); delete it and run the same command: only it is made again."
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
