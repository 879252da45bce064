"""A record to write, and places to send it to: a SQLite file, a real MLflow server on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from mlflow_server import free_port, run_server

from probegrid.schema import TrackingConfig
from probegrid.tracking.provenance import Provenance
from probegrid.tracking.record import CellRecord, Status, write

CONFIG = {
    "model": {"path": "embedded:tiny", "dtype": "float32", "revision": None},
    "dataset": {"num_samples": 400, "path": None},
    "prompt": {"stop": ["\n", "Question:"], "use_context": False},
}
RECORD = CellRecord(
    cell="0123456789abcdef",
    name="tiny-none-facts-gnll",
    status=Status.done,
    choices={
        "model": "tiny",
        "quantization": "none",
        "device_map": "auto",
        "dataset": "facts",
        "probe": "gnll",
    },
    provenance=Provenance(
        git_commit="c0ffee" * 6 + "c0ff",
        git_dirty=True,
        host="node-1",
        gpus=("NVIDIA H200", "NVIDIA H200"),
        slurm_job_id="42_1",
        command="probegrid model=tiny",
        started_at="2026-03-01T10:00:00.000+00:00",
        seconds=12.5,
    ),
    metrics={"accuracy": 0.625, "auroc": 0.875, "ece": float("nan"), "n": 400, "peak_gpu_gb_0": 1.5},
    notes={"ece": "the score is no probability"},
    steps={"train_loss": [(0, 0.7), (1, 0.5)], "layer_auroc": [(0, 0.5), (22, 0.9)]},
    plan={"blocks": 4, "bytes": 10},
    versions={"python": "3.11.0"},
)
TABLES = {"scores": pyarrow.table({"example_id": ["a", "b"], "score": [0.5, -1.0]})}
FIGURES = {"roc.png": b"\x89PNG figure"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def record() -> CellRecord:
    """A record with every field filled in but ``error`` and ``sweep``."""
    return RECORD


@pytest.fixture
def write_cell(tmp_path: Path) -> Callable[..., Path]:
    """Write a cell into ``tmp_path/results``; keywords replace fields of the record."""

    def write_changed(**changes: Any) -> Path:
        changed = replace(RECORD, **changes)
        return write(tmp_path / "results", changed, CONFIG, tables=TABLES, figures=FIGURES)

    return write_changed


@pytest.fixture
def sqlite(migrated: Path, tmp_path: Path) -> TrackingConfig:
    """Tracking into a SQLite file of the test's own."""
    path = shutil.copy(migrated, tmp_path / "mlflow.db")
    return TrackingConfig(uri=f"sqlite:///{path}")


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[str]:
    """A server for all tests; each takes an experiment of its own."""
    with run_server(tmp_path_factory.mktemp("server"), migrated, free_port()) as uri:
        yield uri


@pytest.fixture
def server(server_uri: str, request: pytest.FixtureRequest) -> TrackingConfig:
    """Tracking into the server, in an experiment named after the test."""
    return TrackingConfig(uri=server_uri, experiment=request.node.name)


@pytest.fixture
def start_server(tmp_path: Path, migrated: Path) -> Callable[[int], AbstractContextManager[str]]:
    """Start a server of the test's own on a given port, with what it held before."""
    return lambda port: run_server(tmp_path / "own-server", migrated, port)


@pytest.fixture
def port() -> int:
    """A port of loopback that nothing listens on."""
    return free_port()
