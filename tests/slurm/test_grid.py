"""Grids on a real SLURM: what jobs ask for, what they share, what MLflow is told, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow_server import free_port, run_server
from slurm_helpers import scontrol, slurm
from sweep_helpers import Grid, check_mlflow, finish, sent_cells, undisturbed, wait_until

FAST = (
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "dataset.num_samples=6",
    "decoding.batch_size='1'",
)
ON_SLURM = ("hydra/launcher=mine",)
Checkpoints = Callable[[str], Path]


def test_two_models_are_two_jobs_that_ask_for_what_each_needs(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.tracking = "mlflow"
    grid.add_model("small", checkpoint("llama"), gpus=1, cpus=2, mem_gb=3, timeout_min=60)
    grid.add_model("large", checkpoint("qwen2"), gpus=3, cpus=6, mem_gb=9, timeout_min=90)
    command = (
        *FAST,
        "model=small,large",
        "dataset=facts,facts_rare",
        "probe=gnll,semantic_entropy",
        "device_map=cpu",
    )

    assert grid.run(*ON_SLURM, *command).returncode == 0
    assert grid.states() == ["done"] * 8
    jobs = grid.jobs()
    assert [job["name"] for job in jobs] == ["small-none-cpu", "large-none-cpu"]
    assert [len(job["cells"]) for job in jobs] == [4, 4]
    for job, asked in zip(
        jobs,
        (
            ("gres/gpu=1", "NumCPUs=2", "mem=3000M", "TimeLimit=01:00:00"),
            ("gres/gpu=3", "NumCPUs=6", "mem=9000M", "TimeLimit=01:30:00"),
        ),
        strict=True,
    ):
        shown = scontrol(job["id"])
        assert all(re.search(rf"\b{each}\b", shown) for each in asked)
        assert (grid.folder / job["log"]).read_text().count("loaded ") == 1
    assert len(check_mlflow(grid, f"sqlite:///{grid.folder}/mlflow.db")) == 9

    local = undisturbed(grid)
    assert local.run(*command).returncode == 0
    assert local.numbers() == grid.numbers()


def test_eight_jobs_whose_mlflow_server_stops_half_way(
    grid: Grid, checkpoint: Checkpoints, migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    port, server = free_port(), tmp_path / "server"
    grid.tracking = "mlflow"
    grid.add_model("small", checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60)
    there = f"tracking.uri=http://127.0.0.1:{port}"
    command = (*ON_SLURM, "hydra.launcher.cells_per_job=2", *FAST, "model=small", "seed=range(16)", there)

    with run_server(server, migrated, port):
        launcher = grid.start(*command)
        wait_until(lambda: len(sent_cells(grid)) >= 4)
    ended = finish(launcher)
    assert ended.returncode == 1
    assert "all 16 cells are done, but MLflow does not have" in ended.stderr.strip().splitlines()[-1]
    assert grid.states() == ["done"] * 16
    assert len(grid.jobs()) == 8
    assert len({job["id"].partition("_")[0] for job in grid.jobs()}) == 1  # one array
    assert "`probegrid action=sync` sends it later" in ended.stderr
    assert 4 <= len(sent_cells(grid)) < 16

    with run_server(server, migrated, port) as uri:
        assert "failed 0" in grid.look("action=sync", there)
        runs = check_mlflow(grid, uri)
        assert "sent 0, there already 17, failed 0" in grid.look("action=sync", there)
        assert check_mlflow(grid, uri) == runs


def test_what_slurm_does_not_know_is_refused(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"))
    for override, answer in {
        "hydra.launcher.partition=gqu": "did you mean 'gpu'? Allowed: gpu, urgent",
        "+hydra.launcher.extra.nodelst=n1": "did you mean 'nodelist'?",
        "hydra.launcher.acount=me": "did you mean 'account'?",
        "hydra.launcher.constraint=h100": "SLURM refuses a job",
    }.items():
        refused = grid.run(*ON_SLURM, *FAST, "model=small", override)
        assert refused.returncode == 2
        assert answer in refused.stderr
    assert not slurm("squeue", "-h").strip()
