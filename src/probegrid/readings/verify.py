"""Whether the store holds what it held when it was written: every file against the name that its content gave it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from probegrid.disk import content_name, set_aside, unreadable
from probegrid.errors import StoreError
from probegrid.readings.store import DESCRIPTION_FILE, key_of

_OWN_FOLDER = r"[\w-]+"
_NAMED_BY_CONTENT = re.compile(r"[^.].*-(?P<name>[0-9a-f]{32})\.(parquet|safetensors)")


def verify_store(store_dir: Path) -> tuple[int, list[str]]:
    """Hold every reading and every quantized part against its checksum, and each description against its key.

    A damaged file is set aside: what it held is made again by whatever needs it.

    Returns:
        How many files were looked at, and a line for each that is damaged or may not be read, as a folder may not.
    """
    lines = [str(unreadable(folder, error)) for folder, error in _closed_folders(store_dir)]
    files = sorted(
        file
        for file in store_dir.glob("*/*/**/*")
        if file.name == DESCRIPTION_FILE or _NAMED_BY_CONTENT.fullmatch(file.name)
    )
    for file in files:
        try:
            if not _is_whole(file):
                lines.append(
                    f"{file} is damaged (its checksum differs); it is kept as {set_aside(file).name}"
                )
        except FileNotFoundError:  # merged with others meanwhile
            continue
        except OSError as error:
            lines.append(str(unreadable(file, error)))
        except StoreError as error:
            lines.append(str(error))
    return len(files), lines


def _closed_folders(store_dir: Path) -> Iterator[tuple[Path, OSError]]:
    """Folders that may not be looked into, which `Path.glob` passes over without a word."""
    if not store_dir.is_dir():
        return
    for folder in (store_dir, *store_dir.glob("*"), *store_dir.glob("*/*/**")):
        if not re.fullmatch(_OWN_FOLDER, folder.name) and folder != store_dir:  # ``lost+found``
            continue
        if folder.is_dir():
            try:
                os.listdir(folder)
                (folder / DESCRIPTION_FILE).exists()
            except OSError as error:
                yield folder, error


def _is_whole(file: Path) -> bool:
    if file.name != DESCRIPTION_FILE:
        return content_name(file) == file.stem.rpartition("-")[2]
    try:
        description = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(description, dict) and key_of(description) == file.parent.name
