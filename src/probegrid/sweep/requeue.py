"""What a SLURM job does when it is told to go (SIGUSR2): it asks for its turn again, or says why it does not.

Its progress is on disk, so that starting again is going on. Preempted, it may always; at its time limit
``max_timeouts`` times, after which more time is what it needs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from probegrid.sweep import slurm_queue
from probegrid.sweep.slurm import asked_by
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Job, JobNote, Submission

_SIGNAL_EARLY_S = 90
"""SLURM sends ``--signal`` up to a minute early; the rest is for the question how much time is left."""
TIME_LIMIT, PREEMPTED, BY_SLURM = "its time limit", "preemption", "a requeue by SLURM"


def job_id() -> str:
    """Id of the job that this process is, as squeue shows it."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID"))
    return f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]


@contextmanager
def requeueing(folder: SweepFolder, number: int) -> Iterator[None]:
    """Take the signal over from submitit, which guesses from the time that passed why it came."""
    job = job_id()

    def told_to_go(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        sys.exit(_go(folder, number, job))

    before = signal.signal(signal.SIGUSR2, told_to_go)
    _note_restarts(folder, number, job)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def _go(folder: SweepFolder, number: int, job: str) -> str:
    """Ask for another turn where there is one; return what the log is told."""
    submission = folder.read_submission(number)
    note = folder.read_note(number, job)
    why = TIME_LIMIT if _is_out_of_time(submission) else PREEMPTED
    again = JobNote((*note.restarts, why))
    if why == TIME_LIMIT and again.restarts.count(why) > submission.options["max_timeouts"]:
        described = next(each for each in submission.jobs if each.id == job)
        folder.write_text(folder.end_file(number, job), _out_of_time(submission, described, again))
        return _out_of_time(submission, described, again)
    folder.write_note(number, job, again)
    if not slurm_queue.requeue(job):
        return f"{why}: SLURM does not let the job start again"
    return f"{why}: the job starts again and goes on where it is now"


def _is_out_of_time(submission: Submission) -> bool:
    left = slurm_queue.time_left_s(os.environ["SLURM_JOB_ID"])
    return left is not None and left <= submission.options["signal_delay_s"] + _SIGNAL_EARLY_S


def _out_of_time(submission: Submission, job: Job, note: JobNote) -> str:
    key = asked_by(submission, job, "timeout_min")
    return (
        f"TimeLimit: the job reached its time limit {note.restarts.count(TIME_LIMIT)} times; "
        f"raise {key} or hydra.launcher.max_timeouts={submission.options['max_timeouts']}."
    )


def _note_restarts(folder: SweepFolder, number: int, job: str) -> None:
    """Write down restarts that the job did not ask for itself: its node failed, somebody requeued it."""
    restarts = folder.read_note(number, job).restarts
    missing = int(os.environ.get("SLURM_RESTART_COUNT", "0")) - len(restarts)
    if missing > 0:
        folder.write_note(number, job, JobNote((*restarts, *[BY_SLURM] * missing)))
