"""``max_parallel`` on a real SLURM: never more jobs at once, and no lane idle while another has jobs that wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_helpers import slurm
from sweep_helpers import Grid, finish, wait_until

FAST = (
    "tracking=none",
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "dataset.num_samples=4",
    "decoding.batch_size='1'",
    "hydra/launcher=mine",
)
Checkpoints = Callable[[str], Path]
Sample = tuple[float, frozenset[str], frozenset[str]]
"""A moment, the jobs that run, the jobs that wait."""
LONGEST_GAP_S = 8.0
"""What SLURM and a busy machine may take from the end of a job to the start of the next."""


def sampled_until_all_ended(count: int) -> list[Sample]:
    """What squeue says of the jobs, a few times a second, until ``count`` were seen and all ended."""
    samples: list[Sample] = []

    def look() -> bool:
        rows = [line.split() for line in slurm("squeue", "-h", "-r", "-o", "%i %T").splitlines()]
        running = frozenset(job for job, state in rows if state in ("RUNNING", "COMPLETING"))
        waiting = frozenset(job for job, state in rows if state == "PENDING")
        samples.append((time.monotonic(), running, waiting))
        seen = frozenset[str]().union(*(running | waiting for _, running, waiting in samples))
        return len(seen) == count and not (running or waiting)

    wait_until(look, 150)
    return samples


def longest_idle_s(samples: list[Sample], most: int) -> float:
    """The longest time for which fewer than ``most`` ran although others waited."""
    longest, since = 0.0, None
    for moment, running, waiting in samples:
        if waiting and len(running) < most:
            since = moment if since is None else since
            longest = max(longest, moment - since)
        else:
            since = None
    return longest


@pytest.mark.parametrize("detach", ["true", "false"])
def test_free_lanes_are_filled_and_no_more_run(grid: Grid, checkpoint: Checkpoints, detach: str) -> None:
    names = ("long", "a", "b", "c", "d")
    for cpus, name in enumerate(names, start=1):  # packs that ask for different things cannot be one array
        grid.add_model(name, checkpoint("llama"), gpus=0, cpus=cpus, mem_gb=2, timeout_min=60)
    slow = grid.add_faulty("slow", checkpoint("llama"), gpus=0, cpus=7, mem_gb=2, timeout_min=60)
    slow.set("slow 2.5")
    models = f"model=slow,{','.join(names[1:])}"
    launcher = grid.start(*FAST, models, "hydra.launcher.max_parallel=2", f"hydra.launcher.detach={detach}")
    samples = sampled_until_all_ended(5)
    assert finish(launcher).returncode == 0
    assert grid.states() == ["done"] * 5
    assert max(len(running) for _, running, _ in samples) == 2
    assert longest_idle_s(samples, 2) < LONGEST_GAP_S
    slow_job, *others = (job["id"] for job in grid.jobs())
    last = max(moment for moment, running, _ in samples if slow_job in running)
    assert all(max(m for m, running, _ in samples if job in running) < last for job in others)


def test_a_pack_in_several_jobs_is_one_array_with_a_limit(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60)
    limits = ("hydra.launcher.max_parallel=2", "hydra.launcher.cells_per_job=1")
    launcher = grid.start(*FAST, "model=small", "seed=range(4)", *limits)
    samples = sampled_until_all_ended(4)
    assert finish(launcher).returncode == 0
    assert len({job["id"].partition("_")[0] for job in grid.jobs()}) == 1
    assert max(len(running) for _, running, _ in samples) == 2
