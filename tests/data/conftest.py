"""The contract of a dataset as a fixture, and writers of small files in the schemas of the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from probegrid import testing as contracts
from probegrid.schema import DatasetConfig

CheckDataset = Callable[[DatasetConfig], None]
WriteLines = Callable[..., Path]


@pytest.fixture
def check_dataset() -> CheckDataset:
    """Hold a config of at least ten examples to what every dataset promises."""
    return contracts.check_dataset


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Write rows as JSON lines: ``write_lines("train.jsonl", rows)``."""

    def write(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
