"""probegrid from its wheel, with a cluster profile, a model and a dataset of the user's own, on a real SLURM."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import own_parts
from slurm_helpers import scontrol
from sweep_helpers import Grid, own_grid


def test_a_wheel_runs_the_users_own_grid(
    grid: Grid,
    installed: Callable[..., subprocess.CompletedProcess[str]],
    checkpoint: Callable[[str], Path],
) -> None:
    profile = {"defaults": ["slurm", "_self_"], "partition": "gpu", "poll_s": 1, "extra": {"comment": "mine"}}
    assert "2 done" in installed("probegrid", *own_grid(grid, checkpoint("llama"), profile)).stdout
    assert grid.states() == ["done", "done"]
    (job,) = grid.jobs()
    assert "Comment=mine" in scontrol(job["id"])
    assert Path(job["log"]).read_text().count("loaded ") == 1


def test_a_wheel_runs_parts_of_the_users_own(
    grid: Grid, installed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The grid of ``docs/own_parts.md``, as one job a pack; the profile exports the module's name."""
    own_parts.write_files(grid.folder)
    grid.add(
        "hydra/launcher",
        "plugged",
        {
            "defaults": ["slurm", "_self_"],
            "partition": "gpu",
            "poll_s": 1,
            "setup": ["export PROBEGRID_PLUGINS=my_parts"],
        },
    )
    command = own_parts.commands()[1]
    done = installed(
        "probegrid",
        *(*command, "--config-dir", str(grid.groups), "hydra/launcher=plugged"),
        cwd=grid.folder,
        PROBEGRID_PLUGINS="my_parts",
        **grid.environment,
    )
    assert "4 done" in done.stdout
    assert grid.states() == ["done"] * 4
