"""Grids on a real SLURM: what jobs ask for, what becomes of them, and what is left of a sweep that was disturbed."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from sweep_helpers import Grid, finish, undisturbed, wait_until

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
    grid.add("dataset", "few", {"defaults": ["/schema/dataset/facts@_here_", "_self_"], "num_samples": 3})
    command = (
        "decoding.max_new_tokens=4",
        "model=small,large",
        "dataset=facts,few",
        "prompt.num_few_shot=0,2",
    )
    command = (*command, "dataset.num_samples=6", "device_map=cpu")

    assert grid.run(*ON_SLURM, *command).returncode == 0
    assert grid.states() == ["done"] * 8
    jobs = grid.jobs()
    assert [job["name"] for job in jobs] == ["small-none-cpu", "large-none-cpu"]
    assert [len(job["cells"]) for job in jobs] == [4, 4]
    small, large = (scontrol(job["id"]) for job in jobs)
    assert (
        "gres/gpu=1" in small
        and "NumCPUs=2" in small
        and "mem=3000M" in small
        and "TimeLimit=01:00:00" in small
    )
    assert (
        "gres/gpu=3" in large
        and "NumCPUs=6" in large
        and "mem=9000M" in large
        and "TimeLimit=01:30:00" in large
    )
    for job in jobs:
        assert (grid.folder / job["log"]).read_text().count("loaded ") == 1
    on_slurm = grid.numbers()
    assert len(mlflow_children(grid)) == len(on_slurm)

    local = undisturbed(grid)
    assert local.run(*command).returncode == 0
    assert local.numbers() == on_slurm


def test_faults_are_shown_and_mended_by_the_same_command(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.tracking = "mlflow"
    faults = ("raise", "unpicklable", "segfault", "kill")
    for fault in faults:
        grid.add_faulty(f"model_{fault}", checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60).set(
            fault
        )
    command = (*ON_SLURM, *FAST, f"model={','.join(f'model_{fault}' for fault in faults)}", "seed=0,1")

    first = grid.run(*command)
    assert first.returncode == 1
    assert first.stderr.strip().splitlines()[-1].startswith("probegrid: 2 of 8 cells are not done")
    assert grid.states() == ["failed", "done"] * 2 + ["done"] * 4
    assert "RuntimeError: this cell fails" in first.stdout
    assert "Unpicklable: holds a lock" in first.stdout
    jobs = grid.jobs()
    assert [job["cells"] for job in jobs[4:]] == [
        [5, 4],
        [7, 6],
    ]  # what died was submitted again, the suspect last
    assert all("JobState=FAILED" in scontrol(job["id"]) for job in jobs[:4])
    failed = [record for record in grid.records().values() if record["status"] == "failed"]
    assert sorted(record["error"]["type"] for record in failed) == ["RuntimeError", "Unpicklable"]
    assert sorted(mlflow_children(grid).values()) == ["FAILED"] * 2 + ["FINISHED"] * 6

    again = grid.run(*command)
    assert again.returncode == 0
    assert "8 cells: 6 done already, 0 on their way, 2 to run" in again.stderr
    assert list(mlflow_children(grid).values()) == ["FINISHED"] * 8


def test_disturbed_jobs_go_on_where_they_were(grid: Grid, checkpoint: Checkpoints) -> None:
    names = ("cancelled", "requeued", "preempted", "late")
    models = {
        name: grid.add_faulty(
            name, checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=1 if name == "late" else 60
        )
        for name in names
    }
    for model in models.values():
        model.set("slow 0.8")
    profile = ("hydra.launcher.signal_delay_s=5", "+hydra.launcher.extra.exclusive=true")
    command = (*ON_SLURM, *profile, *FAST, f"model={','.join(names)}", "dataset.num_samples=24")

    launcher = grid.start(*command)
    wait_until(lambda: all(grid.progress(cell) >= 2 for cell in range(4)) if grid.has_started() else False)
    by_name = dict(zip(names, (job["id"] for job in grid.jobs()), strict=True))
    slurm("scancel", by_name["cancelled"])
    slurm("scontrol", "requeue", by_name["requeued"])
    node = slurm("squeue", "-h", "-o", "%N", "-j", by_name["preempted"]).strip()
    slurm("sbatch", "-p", "urgent", "-w", node, "--exclusive", "--wrap", "sleep 3")
    wait_until(lambda: all(restarts(by_name[name]) for name in ("requeued", "preempted")), 60)
    wait_until(lambda: restarts(by_name["late"]), 100)
    for model in models.values():
        model.mend()
    ended = finish(launcher)
    assert ended.returncode == 1
    assert grid.states()[1:] == ["done"] * 3
    assert "CANCELLED" in ended.stdout
    for name in names[1:]:
        log = (
            grid.folder / next(job["log"] for job in grid.jobs() if job["id"] == by_name[name])
        ).read_text()
        assert log.count("loaded ") >= 2  # it was started again, and went on with what was left
        assert not re.search(r"answers: 0/24", log)

    assert grid.run(*command).returncode == 0
    disturbed = grid.numbers()
    local = undisturbed(grid)
    assert local.run(*FAST, "model=cancelled", "dataset.num_samples=24").returncode == 0
    (alone,) = local.numbers().values()
    assert list(disturbed.values()) == [alone] * 4


def test_detach_status_cancel_and_ctrl_c(grid: Grid, checkpoint: Checkpoints) -> None:
    slow = grid.add_faulty("slow", checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60)
    slow.set("slow 1")
    command = (*ON_SLURM, *FAST, "model=slow", "seed=0,1")

    assert grid.run(*command, "hydra.launcher.detach=true").returncode == 0
    wait_until(lambda: grid.states()[0] == "running")
    assert "1 running, 1 queued" in grid.look("action=status")
    assert "cancelled" in grid.look("action=cancel")
    wait_until(lambda: "2 lost" in grid.run(*command, "action=status").stdout)

    launcher = grid.start(*command)
    wait_until(lambda: len(grid.jobs()) == 2 and grid.states()[0] == "running")
    launcher.send_signal(signal.SIGINT)
    assert finish(launcher).returncode == 130
    wait_until(lambda: not slurm("squeue", "-h").strip())
    slow.mend()
    assert grid.run(*command).returncode == 0
    assert grid.states() == ["done", "done"]


def test_eight_jobs_end_at_once_on_a_fresh_sqlite(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.tracking = "mlflow"
    grid.add_model("small", checkpoint("llama"), gpus=0, cpus=1, mem_gb=2, timeout_min=60)
    ended = grid.run(*ON_SLURM, "hydra.launcher.cells_per_job=1", *FAST, "model=small", "seed=range(8)")
    assert ended.returncode == 0
    assert len({job["id"].partition("_")[0] for job in grid.jobs()}) == 1  # one array
    assert len(grid.jobs()) == 8
    assert list(mlflow_children(grid).values()) == ["FINISHED"] * 8


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


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def scontrol(job: str) -> str:
    return slurm("scontrol", "show", "job", job)


def restarts(job: str) -> int:
    found = re.search(r"Restarts=(\d+)", scontrol(job))
    assert found is not None
    return int(found[1])


def mlflow_children(grid: Grid) -> dict[str, str]:
    """Cell and status of each complete run under the sweep's one parent."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{grid.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("probegrid")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if run.data.tags.get("probegrid.kind") == "sweep")
    artifacts = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"manifest.json", "summary.csv"} <= artifacts
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    assert all(run.data.tags["probegrid.sweep"] == grid.sweep().name for run in children)
    assert all(run.data.metrics["n"] for run in children if run.info.status == "FINISHED")
    return {run.data.tags["probegrid.cell"]: run.info.status for run in children}
