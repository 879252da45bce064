"""What the tests on a real SLURM share: its commands, and nodes that fail."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from sweep_helpers import wait_until


def slurm(*command: str) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def scontrol(job: str) -> str:
    """All that SLURM says of a job."""
    return slurm("scontrol", "show", "job", job)


def node_of(job: str) -> str:
    """The node that runs a job."""
    return slurm("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()


def is_gone(job: str) -> bool:
    """Whether a job, or a task of an array, is over: one that is cancelled has seconds left, and may finish in them."""
    return job not in slurm("squeue", "-h", "-r", "-o", "%i").split()


def restarts(job: str) -> int:
    """How often SLURM started a job again."""
    found = re.search(r"Restarts=(\d+)", scontrol(job))
    assert found is not None
    return int(found[1])


@contextmanager
def failed_nodes(*jobs: str) -> Iterator[None]:
    """Let the nodes of these jobs fail: their daemons and all that the jobs started die at once; then restore them."""
    nodes = [node_of(job) for job in jobs]
    run = Path(_configured("SlurmdPidFile")).parent
    for node, job in zip(nodes, jobs, strict=True):
        steps = [
            process for process in psutil.process_iter() if _title(process).startswith(f"slurmstepd: [{job}.")
        ]
        started = [child for step in steps for child in step.children(recursive=True)]
        daemon = psutil.Process(int((run / f"slurmd.{node}.pid").read_text()))
        for process in (
            daemon,
            *steps,
            *started,
        ):  # in this order nobody is left to report that the job ended
            with suppress(psutil.NoSuchProcess):
                process.kill()
        slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power")
    try:
        yield
    finally:
        for node in nodes:
            slurm("/usr/sbin/slurmd", "-N", node)
        wait_until(
            lambda: "down" not in slurm("sinfo", "--noheader", f"--nodes={','.join(nodes)}", "--format=%T")
        )


def _title(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _configured(name: str) -> str:
    found = re.search(rf"^{name}\s*= (\S+)", slurm("scontrol", "show", "config"), re.MULTILINE)
    assert found is not None
    return found[1]
