"""What the tests of cells share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def random_model(checkpoint: Callable[[str], Path]) -> tuple[str, ...]:
    """Overrides for a small random model in float32."""
    return ("model=custom", f"model.path={checkpoint('llama')}", "model.dtype=float32")
