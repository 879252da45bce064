"""What a user says to the cluster, on a real SLURM: setup, options of sbatch, one cell without ``-m``, corrections."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from slurm_helpers import scontrol, slurm
from sweep_helpers import Grid, finish, wait_until

FAST = (
    "tracking=none",
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "dataset.num_samples=4",
    "hydra/launcher=mine",
)
TINY = {"gpus": 0, "cpus": 1, "mem_gb": 2, "timeout_min": 60}
Checkpoints = Callable[[str], Path]


def test_one_cell_without_m_is_a_job_that_is_waited_for(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"), **TINY)
    options = "hydra.launcher.extra={nodelist: n3, mem: null, time: 90, job-name: mine, comment: my own}"
    ended = grid.command(*FAST, "model=small", options)
    assert ended.returncode == 0
    assert "1 done" in ended.stdout
    (job,) = grid.jobs()
    shown = scontrol(job["id"])
    assert all(
        said in shown
        for said in ("JobName=mine", "NodeList=n3", "TimeLimit=01:30:00", "Comment=my own", "NumCPUs=1")
    )
    assert "mem=1G" in shown  # the cluster's own default for a core
    assert "wckey" not in (grid.folder / job["log"]).with_name(f"{job['id']}_submission.sh").read_text()
    wait_until(lambda: "JobState=COMPLETED" in scontrol(job["id"]))


def test_a_setup_line_that_fails_ends_the_job_and_is_named(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"), **TINY)
    setup = 'hydra.launcher.setup=["export A=1", "module load nosuch", "touch went_on"]'
    command = ("model=small", "seed=0,1", setup)
    ended = grid.run(*FAST, *command)
    assert ended.returncode == 1
    assert "SetupFailed: `module load nosuch` failed with exit status 127" in ended.stdout
    assert "2 failed" in ended.stdout
    assert not (grid.folder / "went_on").exists()
    assert len(grid.jobs()) == 1  # not submitted again
    assert "module: command not found" in (grid.folder / grid.jobs()[0]["log"]).read_text()
    assert {record["error"]["type"] for record in grid.records().values()} == {"SetupFailed"}
    assert "SetupFailed" in grid.run(*FAST, *command, "action=status").stdout


def test_options_corrected_while_jobs_wait(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"), **TINY)
    waits = ("hydra.launcher.extra={begin: now+1hour}", "hydra.launcher.detach=true")
    command = (*FAST, "model=small", "seed=0,1")
    assert grid.run(*command, *waits).returncode == 0
    (first,) = grid.jobs()

    corrected = ("hydra.launcher.partition=urgent", "model.resources.timeout_min=30")
    kept = grid.run(*command, *waits, *corrected)
    assert kept.returncode == 0
    assert f"1 job that waits ({first['id']}) was submitted with other options and keeps them" in kept.stderr
    assert "partition=gpu then, urgent now" in kept.stderr
    assert "timeout_min=60 then, 30 now" in kept.stderr
    assert "hydra.launcher.replace_queued=true" in kept.stderr
    assert len(grid.jobs()) == 1

    ended = grid.run(*command, *corrected, "hydra.launcher.replace_queued=true")
    assert ended.returncode == 0
    assert "2 done" in ended.stdout
    _, second = grid.jobs()
    assert "JobState=CANCELLED" in scontrol(first["id"])
    assert "Partition=urgent" in scontrol(second["id"])
    assert "TimeLimit=00:30:00" in scontrol(second["id"])
    assert len(list(grid.sweep().parent.glob("*/manifest.json"))) == 1  # one sweep, whatever its jobs ask for


def test_a_control_character_never_reaches_a_batch_script(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("small", checkpoint("llama"), **TINY)
    for override in (
        "hydra.launcher.partition='gpu\n#SBATCH --exclusive'",
        "hydra.launcher.setup=['export A=1\ntouch went_on']",
        "hydra.launcher.extra={comment: 'a\rb'}",
        "hydra.launcher.srun_args=['--label\n']",
        "results_dir='r\ns'",
    ):
        refused = grid.command(*FAST, "model=small", override)
        assert refused.returncode == 2
        assert re.search("holds .*control character", refused.stderr.strip().splitlines()[-1])
    assert not slurm("squeue", "-h").strip()
    assert not list(grid.folder.glob("**/*_submission.sh"))


def test_a_job_says_where_it_runs_and_how_long(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_faulty("slow", checkpoint("llama"), **TINY).set("slow 0.5")
    launcher = grid.start(*FAST, "model=slow", "dataset.num_samples=24", "decoding.batch_size='1'")
    wait_until(lambda: grid.has_started() and grid.progress(0) >= 2)
    status = grid.look("action=status")
    (job,) = grid.jobs()
    assert f"on {slurm('squeue', '-h', '-o', '%N').strip()}" in status
    assert "s left" in status or "min left" in status
    assert job["log"] in "".join(status.split())
    state = json.loads((grid.sweep() / "states" / "0.json").read_text())
    assert 0 < state["left_s"] < 600
    assert "cancelled" in grid.look("action=cancel")
    assert finish(launcher).returncode == 1
