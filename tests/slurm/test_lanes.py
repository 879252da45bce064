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
LONGEST_GAP_S = 15.0
"""What SLURM and a busy machine may take from the end of a job to the start of the next."""


def sampled_until(condition: Callable[[], object]) -> list[Sample]:
    """What squeue says of the jobs, a few times a second, until something is so."""
    samples: list[Sample] = []

    def look() -> object:
        rows = [line.split() for line in slurm("squeue", "-h", "-r", "-o", "%i %T").splitlines()]
        running = frozenset(job for job, state in rows if state in ("RUNNING", "COMPLETING"))
        waiting = frozenset(job for job, state in rows if state == "PENDING")
        samples.append((time.monotonic(), running, waiting))
        return condition()

    wait_until(look, 240)
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
    for cpus, name in enumerate(names[1:], start=1):  # what asks for different things cannot be one array
        grid.add_model(name, checkpoint("llama"), gpus=0, cpus=cpus, mem_gb=2, timeout_min=60)
    long = grid.add_faulty("long", checkpoint("llama"), gpus=0, cpus=7, mem_gb=2, timeout_min=60)
    long.set("wait")
    limits = ("hydra.launcher.max_parallel=2", f"hydra.launcher.detach={detach}")
    launcher = grid.start(*FAST, f"model={','.join(names)}", *limits)
    samples = sampled_until(lambda: grid.has_started() and grid.states()[1:] == ["done"] * 4)
    long.mend()  # it took one lane all the time, and the others had the other in turn
    samples += sampled_until(lambda: grid.states() == ["done"] * 5)
    assert finish(launcher).returncode == 0
    assert max(len(running) for _, running, _ in samples) == 2
    assert longest_idle_s(samples, 2) < LONGEST_GAP_S


def test_a_pack_in_several_jobs_is_one_array_with_a_limit(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60)
    limits = ("hydra.launcher.max_parallel=2", "hydra.launcher.cells_per_job=1")
    launcher = grid.start(*FAST, "model=small", "seed=range(4)", *limits)
    samples = sampled_until(lambda: grid.has_started() and grid.states() == ["done"] * 4)
    assert finish(launcher).returncode == 0
    assert len({job["id"].partition("_")[0] for job in grid.jobs()}) == 1
    assert max(len(running) for _, running, _ in samples) == 2
