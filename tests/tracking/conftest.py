"""A record to write, a migrated SQLite file, and a real MLflow server on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_session import open_experiment
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
FIGURES = {"roc": b"\x89PNG figure"}


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


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables, made once: the migrations take seconds."""
    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    with open_experiment(TrackingConfig(uri=f"sqlite:///{path}", experiment="made with the tables")):
        return path


@pytest.fixture
def sqlite(migrated: Path, tmp_path: Path) -> TrackingConfig:
    """Tracking into a SQLite file of the test's own."""
    path = shutil.copy(migrated, tmp_path / "mlflow.db")
    return TrackingConfig(uri=f"sqlite:///{path}")


@contextmanager
def run_server(folder: Path, migrated: Path, port: int) -> Iterator[str]:
    """Run ``mlflow server --serve-artifacts`` on a SQLite file in ``folder``; yield its URI."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "server.db").exists():
        shutil.copy(migrated, folder / "server.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, env=os.environ | quiet, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for_answer(f"http://127.0.0.1:{port}/health", server, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait_for_answer(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            opener.open(url, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the MLflow server did not start:\n{log.read_text()}")


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


def free_port() -> int:
    """Ask the system for a port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start_python(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start Python code in a process of its own that sees the same packages."""

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
