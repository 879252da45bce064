"""Whether the store holds what it held when it was written: every file against the name that its content gave it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from probegrid.disk import content_name, set_aside
from probegrid.readings.store import DESCRIPTION_FILE, key_of, unreadable

_NAMED_BY_CONTENT = re.compile(r"[^.].*-(?P<name>[0-9a-f]{32})\.(parquet|safetensors)")


def verify_store(store_dir: Path) -> tuple[int, list[str]]:
    """Hold every reading and every quantized part against its checksum, and each description against its key.

    A damaged file is set aside: what it held is made again by whatever needs it.

    Returns:
        How many files were looked at, and a line for each that is damaged or may not be read.

    Raises:
        StoreError: a damaged file cannot be renamed.
    """
    files = sorted(
        file
        for file in store_dir.glob("*/*/**/*")
        if file.name == DESCRIPTION_FILE or _NAMED_BY_CONTENT.fullmatch(file.name)
    )
    lines: list[str] = []
    for file in files:
        try:
            is_whole = _is_whole(file)
        except FileNotFoundError:  # merged with others meanwhile
            continue
        except OSError as error:
            lines.append(str(unreadable(file, error)))
            continue
        if not is_whole:
            lines.append(f"{file} is damaged (its checksum differs); it is kept as {set_aside(file).name}")
    return len(files), lines


def _is_whole(file: Path) -> bool:
    if file.name != DESCRIPTION_FILE:
        return content_name(file) == file.stem.rpartition("-")[2]
    try:
        description = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(description, dict) and key_of(description) == file.parent.name
