"""Files that are written whole or not at all, and what a disk refuses said in one sentence.

Knows paths and the operating system's errors; must not know what is in the files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from probegrid.errors import StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target`` to write to; flush and rename it when the block ends well.

    Raises:
        StoreError: the disk is full or cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with disk_errors(target):
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn what the operating system says of a disk into one sentence about ``target``."""
    try:
        with full_disk(target):
            yield
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {error.strerror or error}; check store_dir and results_dir."
        ) from error


@contextmanager
def full_disk(target: Path | str) -> Iterator[None]:
    """Turn a full disk, and nothing else, into one sentence about ``target``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise StoreError(
            f"no space is left for {target}; free some and run the same command: it goes on."
        ) from error


def _is_full(error: OSError | SafetensorError) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"os error {number}" in str(error) for number in _FULL)  # all that safetensors says of it
