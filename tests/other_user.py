"""To be another user for a while: root, who runs tests in containers, may read and write whatever there is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OTHER = 23457

only_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")


@contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """Be the other user in the block, to whom the folders above ``folder`` are open."""
    for parent in folder.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    before = os.umask(0o022)
    os.setresuid(OTHER, OTHER, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.umask(before)
