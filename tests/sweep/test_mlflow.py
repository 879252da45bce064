"""Sweeps whose MLflow server is away: cells end well, say how to go on, and `action=sync` makes up for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow_server import free_port, run_server
from sweep_helpers import Grid, check_mlflow, finish, sent_cells, wait_until

FAST = (
    "dataset.num_samples=4",
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "hydra.launcher.poll_s=0.3",
)
Checkpoints = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.mark.server
def test_a_server_that_stops_half_way(
    grid: Grid, checkpoint: Checkpoints, migrated: Path, tmp_path: Path
) -> None:
    port, server = free_port(), tmp_path / "server"
    grid.tracking = "mlflow"
    grid.add_model("small", checkpoint("llama"))
    there = f"tracking.uri=http://127.0.0.1:{port}"
    command = (*FAST, there, "model=small", "seed=range(8)", "hydra.launcher.cells_per_job=4")

    with run_server(server, migrated, port):
        launcher = grid.start(*command)
        wait_until(lambda: len(sent_cells(grid)) >= 3)
    ended = finish(launcher)
    assert ended.returncode == 1
    assert "all 8 cells are done, but MLflow does not have" in ended.stderr.strip().splitlines()[-1]
    assert grid.states() == ["done"] * 8
    assert "does not answer" in ended.stderr
    assert "`probegrid action=sync` sends it later" in ended.stderr
    assert "`probegrid action=sync` sends it later" in Path(grid.folder / grid.jobs()[-1]["log"]).read_text()
    assert 3 <= len(sent_cells(grid)) < 8

    with run_server(server, migrated, port) as uri:
        assert "failed 0" in grid.look("action=sync", there)
        runs = check_mlflow(grid, uri)
        assert len(runs) == 9
        assert "sent 0, there already 9, failed 0" in grid.look("action=sync", there)
        assert check_mlflow(grid, uri) == runs


def test_a_sweep_that_was_never_opened_at_the_server(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.tracking = "mlflow"
    grid.add_model("small", checkpoint("llama"))
    ended = grid.run(*FAST, f"tracking.uri=http://127.0.0.1:{free_port()}", "model=small", "seed=0,1")
    assert ended.returncode == 1
    assert "all 2 cells are done, but MLflow does not have 2 of them" in ended.stderr.strip().splitlines()[-1]
    assert not sent_cells(grid)
    assert "sent 3, there already 0, failed 0" in grid.look("action=sync")
    runs = check_mlflow(grid, f"sqlite:///{grid.folder / 'mlflow.db'}")
    assert "sent 0, there already 3, failed 0" in grid.look("action=sync")
    assert check_mlflow(grid, f"sqlite:///{grid.folder / 'mlflow.db'}") == runs
