"""Whether recorded cells are as they were written: every file against its checksum, what is damaged by its name.

A damaged cell is kept, out of the way, for whoever wants to look at it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from probegrid.disk import lies_in, setting_aside, unreadable
from probegrid.errors import StoreError
from probegrid.tracking import record
from probegrid.tracking.record import CONFIG_FILE, RESULT_FILE, CellRecord, DamagedRecord

DAMAGED_FOLDER = ".damaged"


@dataclass(frozen=True)
class Damage:
    """A file of a cell that is not as it was written."""

    file: Path
    reason: str
    """What is the matter with it (``is missing``)."""

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.file} {self.reason}"


def verify(results_dir: Path) -> tuple[int, list[str]]:
    """Look at every file of every recorded cell; a damaged cell is set aside, one that may not be read is only named.

    Returns:
        How many cells were looked at, and a line for each that is damaged or may not be read.

    Raises:
        StoreError: ``results_dir`` may not be read.
    """
    found = record.cell_folders(results_dir, RESULT_FILE, CONFIG_FILE)
    folders = [folder for folder in found if lies_in(folder, results_dir)]
    lines: list[str] = []
    for folder in folders:
        try:
            damage = damage_of(folder)
            if damage:
                lines.append(f"{said(damage)}; the cell is kept as {set_aside(folder)}")
        except StoreError as error:
            lines.append(str(error))
    return len(folders), lines


def damage_of(folder: Path) -> list[Damage]:
    """The damaged files of a cell; none where no cell is recorded.

    What looks damaged is looked at again: the first look may have seen half of a cell that another process replaces.

    Raises:
        StoreError: a file may not be read, which is no damage.
    """
    return _look(folder) and _look(folder)


def _look(folder: Path) -> list[Damage]:
    try:
        found = record.read(folder.parent, folder.name)
    except DamagedRecord:
        return [Damage(folder / RESULT_FILE, "is damaged")]
    if found is None:
        return [Damage(folder / RESULT_FILE, "is missing")] if (folder / CONFIG_FILE).exists() else []
    return list(_damage(folder, found.checksums))


def is_done(folder: Path) -> bool:
    """Whether a cell is recorded as done, and every file of it is as it was written.

    Raises:
        StoreError: a file may not be read.
    """
    return not damage_of(folder) and record.is_done(folder.parent, folder.name)


def sound(folder: Path) -> CellRecord | None:
    """The record of a cell; None where there is none.

    Raises:
        DamagedRecord: a file of the cell is not as it was written.
        StoreError: a file may not be read.
    """
    damage = damage_of(folder)
    if damage:
        raise DamagedRecord(f"{said(damage)}; run its command again, which makes the cell again.")
    return record.read(folder.parent, folder.name)


def said(damage: Sequence[Damage]) -> str:
    """One line for people on the damaged files of a cell."""
    more = f" (and {len(damage) - 1} more of its files)" if len(damage) > 1 else ""
    return f"{damage[0]}{more}"


def _damage(folder: Path, checksums: Mapping[str, str]) -> Iterator[Damage]:
    for name, checksum in checksums.items():
        file = folder / name
        if name == RESULT_FILE:  # `read` has looked at it
            continue
        if not lies_in(file, folder):
            yield Damage(file, "is missing" if not file.exists() else "lies outside the cell's folder")
            continue
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            yield Damage(file, "is missing")
        except OSError as error:
            raise unreadable(file, error) from error
        else:
            if hashlib.sha256(content).hexdigest() != checksum:
                yield Damage(file, "is damaged")


def set_aside(folder: Path) -> Path:
    """Move a damaged cell to where nothing looks for cells, so that it can be run again.

    Returns:
        Its folder now, ``results_dir/.damaged/<key>-<time>``.

    Raises:
        StoreError: the folder cannot be moved.
    """
    target = folder.parent / DAMAGED_FOLDER / f"{folder.name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    with setting_aside(folder):
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
    return target
