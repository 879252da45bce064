"""probegrid from its wheel, with a cluster profile, a model and a dataset of the user's own, on a real SLURM."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

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
