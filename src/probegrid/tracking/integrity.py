"""Whether recorded cells are as they were written: every file against its checksum, what is damaged by its name.

A damaged cell is kept, out of the way, for whoever wants to look at it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from probegrid.disk import disk_errors, lies_in
from probegrid.errors import StoreError
from probegrid.tracking.record import CONFIG_FILE, RESULT_FILE, DamagedRecord, read, unreadable

DAMAGED_FOLDER = ".damaged"
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Damage:
    """A file of a cell that is not as it was written."""

    file: Path
    reason: str
    """What is the matter with it (``is missing``)."""

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.file} {self.reason}"


def verify(results_dir: Path) -> list[Damage]:
    """Look at every file of every recorded cell.

    Returns:
        The damaged ones by name; empty where all is as it was written. What has no checksum, for it was recorded
        before there were any, counts as sound where it can be read.
    """
    folders = sorted(
        {path.parent for name in (RESULT_FILE, CONFIG_FILE) for path in results_dir.glob(f"[!.]*/{name}")}
    )
    return [damage for folder in folders if lies_in(folder, results_dir) for damage in damage_of(folder)]


def damage_of(folder: Path) -> list[Damage]:
    """The damaged files of one cell."""
    try:
        record = read(folder.parent, folder.name)
    except DamagedRecord:
        return [Damage(folder / RESULT_FILE, "is damaged")]
    except StoreError as error:
        return [Damage(folder / RESULT_FILE, f"cannot be looked at: {error}")]
    if record is None:
        return [Damage(folder / RESULT_FILE, "is missing")]
    return list(_damage(folder, record.checksums))


def _damage(folder: Path, checksums: Mapping[str, str]) -> Iterator[Damage]:
    for name, checksum in checksums.items():
        file = folder / name
        if name == RESULT_FILE:  # `read` has looked at it
            continue
        if not lies_in(file, folder):
            yield Damage(file, "is missing" if not file.exists() else "lies outside the cell's folder")
            continue
        try:
            if _sha256(file) != checksum:
                yield Damage(file, "is damaged")
        except FileNotFoundError:
            yield Damage(file, "is missing")
        except OSError as error:
            yield Damage(file, f"cannot be looked at: {unreadable(file, error)}")


def set_aside(results_dir: Path, key: str) -> Path:
    """Move a damaged cell to where nothing looks for cells, so that it can be run again.

    Returns:
        Its folder now, ``results_dir/.damaged/<key>-<time>``.

    Raises:
        StoreError: the folder cannot be moved.
    """
    target = results_dir / DAMAGED_FOLDER / f"{key}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    with disk_errors(target):
        target.parent.mkdir(exist_ok=True)
        (results_dir / key).rename(target)
    return target


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
