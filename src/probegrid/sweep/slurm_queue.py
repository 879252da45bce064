"""SLURM's own commands: what squeue and sacct say of jobs, and what is asked of them by scancel and scontrol."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from probegrid.disk import user_name

_COMMAND_TIMEOUT_S = 60
_QUEUED = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_RUNNING = {
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
}
_COLUMNS = "%i|%T|%r|%N|%L|%E"


@dataclass(frozen=True)
class Listed:
    """A line of squeue or sacct: a job, or a task of an array."""

    state: str
    """SLURM's word: ``PENDING``, ``NODE_FAIL``."""
    reason: str = ""
    node: str = ""
    left_s: float | None = None
    """Seconds to its time limit."""
    after: tuple[str, ...] = ()
    """Ids of jobs that it still waits for."""

    @property
    def is_queued(self) -> bool:
        """Whether it waits."""
        return self.state in _QUEUED

    @property
    def is_running(self) -> bool:
        """Whether it runs, or is about to or has just done."""
        return self.state in _RUNNING


GONE = Listed("GONE", "SLURM no longer knows it")


def queue(user: str = "") -> dict[str, Listed] | None:
    """Every job of a user, by default this one, that SLURM still holds, by id; None if it does not answer."""
    whose = f"--user={user}" if user else "--me"
    text = run("squeue", whose, "--noheader", "--array", "--states=all", f"--format={_COLUMNS}")
    return None if text is None else parse_queue(text)


def parse_queue(text: str) -> dict[str, Listed]:
    """Read lines of squeue in the format that `queue` asks for."""
    rows = (line.strip().split("|") for line in text.splitlines())
    return {
        row[0]: Listed(row[1], _said(row[2]), row[3], seconds(row[4]), _waits_for(row[5]))
        for row in rows
        if len(row) == _COLUMNS.count("|") + 1
    }


def accounted(ids: Sequence[str], user: str = "") -> dict[str, Listed]:
    """What the accounting says of a user's jobs that the queue forgot; those it does not know are left out."""
    asked = ["--format=JobID,State,Reason", f"--jobs={','.join(ids)}"]
    if user:
        asked.append(f"--user={user}")
    text = run("sacct", "--allocations", "--noheader", "--parsable2", *asked) or ""
    rows = (line.strip().split("|") for line in text.splitlines() if line.count("|") >= 2)
    return {row[0]: Listed(row[1].partition(" ")[0], _said(row[2])) for row in rows}  # ``CANCELLED by 0``


def seconds(text: str) -> float | None:
    """Seconds of SLURM's ``days-hours:minutes:seconds``; None for ``UNLIMITED`` and the like.

    >>> seconds("1-02:03:04"), seconds("59:59"), seconds("UNLIMITED")
    (93784.0, 3599.0, None)
    """
    found = re.fullmatch(r"(?:(?P<days>\d+)-)?(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)", text.strip())
    if found is None:
        return None
    days, hours, minutes, rest = (int(found[name] or 0) for name in ("days", "h", "m", "s"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def time_left_s(job: str) -> float | None:
    """Seconds that a running job has; None if it has no limit or SLURM does not answer."""
    return seconds(run("squeue", "--noheader", "--format=%L", f"--jobs={job}") or "")


def cancel(ids: Sequence[str], *, only_queued: bool = False, user: str = "") -> bool:
    """Cancel jobs of a user, by default this one, those that have ended among them.

    Returns:
        Whether SLURM answers, and takes it from this user.
    """
    state = ["--state=PENDING"] if only_queued else []
    whose = user or user_name(os.getuid())
    if not ids or run("scancel", "--quiet", f"--user={whose}", *state, *ids) is not None:
        return True
    listed = queue(whose)  # scancel fails too where SLURM forgot one of the jobs
    if listed is None:
        return False
    left = [listed[job] for job in ids if job in listed]
    return whose == user_name(os.getuid()) or not any(job.is_queued or job.is_running for job in left)


def wait_for(job: str, dependency: str) -> None:
    """Let a job that waits start once ``dependency`` holds; at once where it is empty."""
    run("scontrol", "update", f"JobId={job}", f"Dependency={dependency}")


def requeue(job: str) -> bool:
    """Put a running job back into the queue; whether SLURM took it."""
    return run("scontrol", "requeue", job) is not None


def run(*command: str) -> str | None:
    """What a program prints; None if it fails or hangs."""
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout


def _said(reason: str) -> str:
    return "" if reason == "None" else reason


def _waits_for(dependency: str) -> tuple[str, ...]:
    return tuple(re.findall(r"after\w*:(\d+)", dependency))
