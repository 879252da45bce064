"""A folder to run grids in on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from sweep_helpers import Grid


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """An empty folder; no network, modules of checkpoints copied below it."""
    return Grid(tmp_path, {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")})
