"""Sweeps on a real SLURM that are disturbed: each ends, by the same command, with an undisturbed sweep's numbers."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from alone import numbers_alone
from slurm_helpers import failed_nodes, is_gone, node_of, restarts, scontrol, slurm
from sweep_helpers import Grid, check_mlflow, finish, wait_until

FAST = (
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "dataset.num_samples=6",
    "decoding.batch_size='1'",
)
ON_SLURM = ("hydra/launcher=mine",)
MANY = 24
"""Questions of a cell that is to be caught half way."""
Checkpoints = Callable[[str], Path]
Numbers = Mapping[tuple[int, int], dict[str, str]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoints) -> Numbers:
    """What the cells of this module say alone, by questions and seed."""
    folder = tmp_path_factory.mktemp("alone")
    overrides = (*FAST[:2], FAST[3])
    return numbers_alone(folder, checkpoint("llama"), overrides, samples=[6, MANY], seeds=[0, 1])


def test_eight_packs_end_at_once_on_a_fresh_sqlite_and_their_faults_are_mended_by_the_same_command(
    grid: Grid, checkpoint: Checkpoints, reference: Numbers
) -> None:
    grid.tracking = "mlflow"
    faults, names = ("raise", "unpicklable", "segfault", "kill"), [f"model{number}" for number in range(8)]
    models = [
        grid.add_faulty(name, checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60) for name in names
    ]
    for model, fault in zip(models, faults, strict=False):
        model.set(fault)
    command = (*ON_SLURM, *FAST, f"model={','.join(names)}", "seed=0,1")

    first = grid.run(*command)
    assert first.returncode == 1
    assert first.stderr.strip().splitlines()[-1].startswith("probegrid: 2 of 16 cells are not done")
    assert grid.states() == ["failed", "done"] * 2 + ["done"] * 12
    assert "Sick: this cell fails" in first.stdout
    assert "Unpicklable: holds a lock" in first.stdout
    jobs = grid.jobs()
    assert sorted(job["cells"] for job in jobs[8:]) == [[5, 4], [7, 6]]  # what died, again, the suspect last
    assert all("JobState=FAILED" in scontrol(job["id"]) for job in jobs[:4])
    failed = [record for record in grid.records().values() if record["status"] == "failed"]
    assert sorted(record["error"]["type"] for record in failed) == ["Sick", "Unpicklable"]
    runs = check_mlflow(grid, f"sqlite:///{grid.folder}/mlflow.db", failed=2)

    again = grid.run(*command)
    assert again.returncode == 0
    assert "16 cells: 14 done already, 0 on their way, 2 to run" in again.stderr
    mended = check_mlflow(grid, f"sqlite:///{grid.folder}/mlflow.db")
    assert mended.keys() == runs.keys()
    assert grid.numbers_by_draw().items() <= reference.items()


def test_disturbed_jobs_go_on_where_they_were(
    grid: Grid, checkpoint: Checkpoints, reference: Numbers
) -> None:
    names = ("cancelled", "requeued", "preempted", "late", "moved", "lost")
    models = {
        name: grid.add_faulty(
            name, checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=1 if name == "late" else 60
        )
        for name in names
    }
    for model in models.values():
        model.set("slow 0.8")
    profile = ("hydra.launcher.signal_delay_s=5", "+hydra.launcher.extra.exclusive=true")
    command = (*ON_SLURM, *profile, *FAST, f"model={','.join(names)}", f"dataset.num_samples={MANY}")

    launcher = grid.start(*command)
    wait_until(lambda: grid.has_started() and len(grid.jobs()) == len(names))
    by_name = dict(zip(names, (job["id"] for job in grid.jobs()), strict=True))
    wait_until(lambda: all(grid.progress(cell) >= 2 for cell in range(len(names))))
    slurm("scancel", by_name["cancelled"])
    slurm("scontrol", "requeue", by_name["requeued"])
    slurm("scontrol", "update", f"JobId={by_name['lost']}", "Requeue=0")
    preempted = ("-p", "urgent", "-w", node_of(by_name["preempted"]), "--exclusive")
    slurm("sbatch", *preempted, "--output=/dev/null", "--wrap", "sleep 3")
    with failed_nodes(by_name["moved"], by_name["lost"]):
        wait_until(lambda: all(restarts(by_name[name]) for name in ("requeued", "preempted", "moved")), 60)
        assert "JobState=NODE_FAIL" in scontrol(by_name["lost"])
        wait_until(lambda: restarts(by_name["late"]), 100)
        wait_until(lambda: is_gone(by_name["cancelled"]))
        for model in models.values():
            model.mend()
        ended = finish(launcher)
    assert ended.returncode == 1
    assert grid.states()[1:] == ["done"] * 5
    assert "by scancel" in ended.stdout
    for name, why in (
        ("preempted", "preemption"),
        ("late", "its time limit"),
        ("moved", "a requeue by SLURM"),
    ):
        assert f"job {by_name[name]} ({name}-none-auto) starts again after {why}, restart 1" in ended.stderr
    assert f"job {by_name['lost']} (lost-none-auto): its job ended: NODE_FAIL" in ended.stderr
    *first, again = grid.jobs()
    assert [job["name"].partition("-")[0] for job in first] == list(names)
    assert again["name"].startswith("lost")  # by the launcher; SLURM itself started the others again
    for job in (*first[1:-1], again):
        log = (grid.folder / job["log"]).read_text()
        # Where six programs start slowly on few cores, a minute's limit ends the late one before it has loaded.
        once = job is again or job["id"] == by_name["late"]
        assert log.count("loaded ") >= (1 if once else 2)
        assert not re.search(rf"answers: 0/{MANY}", log)  # it went on with what was left

    assert grid.run(*command).returncode == 0
    assert grid.states() == ["done"] * 6
    assert grid.numbers_by_draw() == {(MANY, 0): reference[MANY, 0]}


def test_detach_status_cancel_and_ctrl_c(grid: Grid, checkpoint: Checkpoints, reference: Numbers) -> None:
    slow = grid.add_faulty("slow", checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60)
    slow.set("slow 1")
    command = (*ON_SLURM, *FAST, "model=slow", "seed=0,1")

    assert grid.run(*command, "hydra.launcher.detach=true").returncode == 0
    wait_until(lambda: grid.states()[0] == "running")
    assert "1 running, 1 queued" in grid.look("action=status")
    assert "cancelled" in grid.look("action=cancel")
    wait_until(lambda: "2 cancelled" in grid.run(*command, "action=status").stdout)

    launcher = grid.start(*command)
    wait_until(lambda: len(grid.jobs()) == 2 and grid.states()[0] == "running")
    launcher.send_signal(signal.SIGINT)
    assert finish(launcher).returncode == 130
    wait_until(lambda: not slurm("squeue", "-h").strip())
    slow.mend()
    assert grid.run(*command).returncode == 0
    assert grid.states() == ["done", "done"]
    assert grid.numbers_by_draw() == {(6, seed): reference[6, seed] for seed in (0, 1)}
