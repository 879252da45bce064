"""Jobs that share one cell on a real SLURM: an array that claims batches, kills in between, numbers as of one job."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from slurm_helpers import is_gone, slurm
from sweep_helpers import Grid, artifacts, finish, undisturbed, wait_until

TINY = {"gpus": 0, "cpus": 1, "mem_gb": 2, "timeout_min": 60}
QUESTIONS = 240
Checkpoints = Callable[[str], Path]


def parts(grid: Grid) -> list[Path]:
    """The parts of the only reading."""
    return list(grid.folder.glob("store/answers/*/part-*.parquet"))


def logs(grid: Grid) -> list[str]:
    return [
        (grid.folder / job["log"]).read_text() for job in grid.jobs() if (grid.folder / job["log"]).exists()
    ]


@pytest.mark.parametrize("detach", ["false", "true"])
def test_an_array_shares_a_cell_and_kills_in_between_change_nothing(
    grid: Grid, checkpoint: Checkpoints, detach: str
) -> None:
    slow = grid.add_faulty("shared", checkpoint("llama"), **TINY)
    slow.set("slow 0.2")
    cell = (
        "model=shared",
        "decoding.max_new_tokens=4",
        "prompt.num_few_shot=0",
        f"dataset.num_samples={QUESTIONS}",
        "decoding.batch_size='4'",
    )
    grid.tracking = "mlflow"
    options = ("hydra/launcher=mine", "hydra.launcher.jobs_per_cell=3", f"hydra.launcher.detach={detach}")
    launcher = grid.start(*cell, *options)
    wait_until(lambda: grid.has_started() and sum("loaded " in log for log in logs(grid)) == 3)
    ids = [job["id"] for job in grid.jobs()]
    assert len({job.partition("_")[0] for job in ids}) == 1  # one array
    wait_until(lambda: len(parts(grid)) >= 6)
    os.kill(grid.worker(0) or 0, signal.SIGKILL)  # whoever said last how the cell is doing
    wait_until(lambda: len(slurm("squeue", "-h", "-r", "--states=running").splitlines()) == 2)
    left = slurm("squeue", "-h", "-r", "-o", "%i").split()
    wait_until(lambda: len(parts(grid)) >= 20)
    slurm("scancel", left[0])
    wait_until(lambda: is_gone(left[0]))
    slow.mend()
    assert finish(launcher).returncode == 0
    wait_until(grid.is_closed)
    assert grid.states() == ["done"]
    assert [job["id"] for job in grid.jobs()] == ids  # nothing had to be submitted again
    rows = [row for file in parts(grid) for row in pq.read_table(file).to_pylist()]
    assert set(Counter(row["prompt"] for row in rows).values()) == {1}
    assert len(rows) == QUESTIONS

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{grid.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("probegrid")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2  # the sweep and its cell
    assert all(artifacts(client, run.info.run_id) for run in runs)

    local = undisturbed(grid)
    assert local.run(*cell).returncode == 0
    assert local.numbers() == grid.numbers()
