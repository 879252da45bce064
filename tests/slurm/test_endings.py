"""How sweeps end on a real SLURM when somebody or something ends them: said as what it was, nothing lost."""

from __future__ import annotations

import signal
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
    "dataset.num_samples=6",
    "decoding.batch_size='1'",
    "hydra/launcher=mine",
)
TINY = {"gpus": 0, "cpus": 1, "mem_gb": 2, "timeout_min": 60}
Checkpoints = Callable[[str], Path]


def logs_named(text: str) -> list[str]:
    """Paths of logs in a table, however it folds them."""
    return [word for word in text.split() if word.endswith((".out", ".txt", ".log"))]


def test_scancel_is_no_loss_and_what_died_is_submitted_again_with_a_word(
    grid: Grid, checkpoint: Checkpoints
) -> None:
    ended, dead = (grid.add_faulty(name, checkpoint("llama"), **TINY) for name in ("ended", "dead"))
    ended.set("slow 1")
    dead.set("kill")
    launcher = grid.start(*FAST, "model=ended,dead")
    wait_until(lambda: grid.has_started() and grid.progress(0) >= 1)
    slurm("scancel", grid.jobs()[0]["id"])
    done = finish(launcher)
    assert done.returncode == 1
    assert "1 done, 1 cancelled" in done.stdout
    assert "by scancel" in done.stdout
    assert all((grid.folder / log).exists() for log in logs_named(done.stdout))
    first, killed, again = grid.jobs()
    assert f"job {killed['id']} (dead-none-auto): its job ended: FAILED" in done.stderr
    assert f"1 of its 1 cells submitted again as job {again['id']}, try 2 of 2" in done.stderr
    assert again["cells"] == killed["cells"]
    assert first["id"] not in done.stderr


def test_a_cancelled_queue_has_no_logs_to_show(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"), **TINY)
    command = (*FAST, "model=small", "seed=0,1", "hydra.launcher.extra={begin: now+1hour}")
    assert grid.run(*command, "hydra.launcher.detach=true").returncode == 0
    cancelled = grid.run(*command, "action=cancel")
    status = grid.run(*command, "action=status")
    for shown in (cancelled.stdout, status.stdout):
        assert "2 cancelled" in shown
        assert "action=cancel: no further cell was begun" in " ".join(shown.split())
        assert not logs_named(shown)
    wait_until(lambda: not slurm("squeue", "-h").strip())


@pytest.mark.parametrize("detach", ["true", "false"])
def test_max_failures_says_that_it_struck_and_the_summary_is_written(
    grid: Grid, checkpoint: Checkpoints, detach: str
) -> None:
    grid.add_faulty("sick", checkpoint("llama"), **TINY).set("raise")
    for name in ("second", "third"):
        grid.add_model(name, checkpoint("llama"), **TINY)
    options = (
        "hydra.launcher.max_failures=1",
        "hydra.launcher.max_parallel=1",
        f"hydra.launcher.detach={detach}",
    )
    command = (*FAST, "model=sick,second,third", "seed=0,1", *options)
    ended = grid.run(*command)
    wait_until(grid.is_closed)
    wait_until(lambda: not slurm("squeue", "-h").strip())
    rows = grid.summary()
    assert [row["state"] for row in rows] == ["failed"] + ["cancelled"] * 5
    assert grid.states() == ["failed"] + [None] * 5
    shown = ended if detach == "false" else grid.run(*command, "action=status")
    assert "hydra.launcher.max_failures=1 was reached: no further cell was begun" in " ".join(
        shown.stdout.split()
    )
    assert all((grid.folder / log).exists() for log in logs_named(shown.stdout))
    if detach == "false":
        assert ended.returncode == 1
        assert "max_failures=1 was reached" in ended.stderr.strip().splitlines()[-1]


def test_a_job_out_of_time_names_the_key_to_raise(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_faulty("late", checkpoint("llama"), **TINY | {"timeout_min": 2}).set("slow 1")
    options = ("hydra.launcher.signal_delay_s=30", "hydra.launcher.max_timeouts=1")
    launcher = grid.start(*FAST, "model=late", "dataset.num_samples=200", *options)
    workers: set[int] = set()
    for _ in range(2):  # as SLURM does, from half a minute to a minute and a half before the limit
        wait_until(lambda: grid.worker(0) not in {None, *workers} and grid.progress(0) >= 1)
        workers.add(grid.worker(0) or 0)
        slurm("scancel", "--signal=USR2", grid.jobs()[-1]["id"])
    ended = finish(launcher)
    assert ended.returncode == 1
    (job,) = grid.jobs()  # requeued once, then given up, and not submitted again
    assert f"job {job['id']} (late-none-auto) starts again after its time limit, restart 1" in ended.stderr
    said = " ".join(ended.stdout.split())
    assert "TimeLimit" in said
    assert "model.resources.timeout_min=2" in said
    assert "hydra.launcher.max_timeouts=1" in said
    (record,) = grid.records().values()
    assert record["error"]["type"] == "TimeLimit"


@pytest.mark.parametrize(
    ("sent", "status", "on_interrupt"),
    [
        (signal.SIGINT, 130, "cancel"),
        (signal.SIGTERM, 143, "cancel"),
        (signal.SIGHUP, 129, "cancel"),
        (signal.SIGHUP, 129, "detach"),
    ],
)
def test_signals_to_the_launcher(
    grid: Grid, checkpoint: Checkpoints, sent: signal.Signals, status: int, on_interrupt: str
) -> None:
    grid.add_faulty("slow", checkpoint("llama"), **TINY).set("slow 0.1")
    launcher = grid.start(*FAST, "model=slow", "seed=0,1", f"hydra.launcher.on_interrupt={on_interrupt}")
    wait_until(grid.has_started)
    launcher.send_signal(sent)
    time.sleep(0.2)
    launcher.send_signal(signal.SIGINT)  # impatience changes nothing
    ended = finish(launcher)
    assert ended.returncode == status
    assert "probegrid: interrupted; the same command goes on from here." in ended.stderr
    assert "Traceback" not in ended.stderr
    if on_interrupt == "cancel":
        assert "2 cancelled" in ended.stdout
        wait_until(lambda: not slurm("squeue", "-h").strip())
        assert grid.states() != ["done", "done"]
    else:
        assert "goes on" in ended.stderr
        wait_until(lambda: grid.states() == ["done", "done"])
        wait_until(grid.is_closed)


def test_a_signal_while_jobs_are_submitted_leaves_none_unknown(grid: Grid, checkpoint: Checkpoints) -> None:
    names = [f"model{number}" for number in range(24)]
    for cpus, name in enumerate(names, start=1):
        grid.add_model(name, checkpoint("llama"), **TINY | {"cpus": cpus})
    later = "hydra.launcher.extra={begin: now+1hour}"
    launcher = grid.start(*FAST, f"model={','.join(names)}", later)
    wait_until(lambda: grid.has_started() and grid.jobs())
    launcher.send_signal(signal.SIGTERM)
    assert finish(launcher).returncode == 143
    wait_until(lambda: not slurm("squeue", "-h").strip())
    listed = slurm("squeue", "-h", "--states=all", "--format=%i|%Z").splitlines()
    here = {line.partition("|")[0] for line in listed if line.endswith(str(grid.folder))}
    assert here == {job["id"] for job in grid.jobs()}
    assert 1 <= len(here) < 24
