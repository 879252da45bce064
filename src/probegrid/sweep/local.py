"""The jobs on this machine, each in its own process, so that each starts with free memory, and on cards of its own.

A runner of its own session (`sweep.runner`) starts each when there is room for it: it outlives the launcher that
started it, and is ended with all it started by one signal to its process group.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import psutil

from probegrid.disk import user_name
from probegrid.errors import RunError
from probegrid.sweep.interrupts import uninterrupted
from probegrid.sweep.options import LocalOptions, plain
from probegrid.sweep.scheduler import Ending, JobPhase, JobRequest, JobState, MakeCall
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Job, Submission

_TERM_WAIT_S = 5.0
RUNNER = "probegrid.sweep.runner"
"""By its name alone: it imports what a worker does."""
_SHORT = 12
"""Characters of a GPU's UUID that are shown."""


class LocalScheduler:
    """Runs jobs on this machine."""

    name = "local"

    def __init__(self, options: LocalOptions | None = None) -> None:
        """Take the options of submitting; None where jobs are only looked at."""
        self._options = options or LocalOptions()

    def submit(
        self, folder: SweepFolder, packs: Sequence[Sequence[JobRequest]], make_call: MakeCall
    ) -> Submission:
        """Start a runner for all jobs; each is a process of the worker's module, for which no call is pickled."""
        number = folder.next_submission()
        place = folder.submission_dir(number)
        requests = [request for pack in packs for request in pack]
        jobs = tuple(
            Job(
                f"local-{number}-{index}",
                request.name,
                request.cells,
                request.resources,
                str(place / f"{index}.log"),
                request.cards,
                request.takes_more,
            )
            for index, request in enumerate(requests)
        )
        submission = Submission(
            number, self.name, socket.gethostname(), jobs, plain(self._options), user_name(os.getuid())
        )
        command = [sys.executable, "-m", RUNNER, str(folder.results_dir), folder.id, str(number)]
        with uninterrupted():
            folder.write_submission(submission)
            with (place / "runner.log").open("wb") as log:
                runner = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            created = psutil.Process(runner.pid).create_time()
            folder.write_json(place / "runner.json", {"pid": runner.pid, "created": created})
        runner.returncode = (
            0  # it may outlive this process, and nobody waits for it: its jobs' ends are on disk
        )
        return submission

    def states(self, folder: SweepFolder, submission: Submission) -> dict[str, JobState]:
        """Where each job is; nothing is known of those on another host."""
        if submission.host != socket.gethostname():
            return {}
        return dict(_states(folder, submission))

    def fill(self, folder: SweepFolder) -> None:
        """Nothing: the runner starts each job as the one before it ends."""

    def cancel(self, folder: SweepFolder, submission: Submission) -> None:
        """End the runner and the jobs it has.

        Raises:
            RunError: they are another user's.
        """
        runner = _runner(folder, submission.number)
        if runner is None:
            return
        for each in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                try:
                    os.killpg(runner.pid, each)
                except PermissionError as error:
                    raise RunError(
                        f"what runs is {submission.user or 'another user'}'s, who alone can end it; "
                        "no further cell is begun."
                    ) from error
            deadline = time.monotonic() + _TERM_WAIT_S
            while _is_alive(runner) and time.monotonic() < deadline:
                time.sleep(0.05)

    def withdraw(self, folder: SweepFolder, submission: Submission, jobs: Sequence[str]) -> set[str]:
        """None: what a sweep's `Stop` covers the runner does not start."""
        return set()


def _states(folder: SweepFolder, submission: Submission) -> Iterator[tuple[str, JobState]]:
    place = folder.submission_dir(submission.number)
    alive = _runner(folder, submission.number) is not None
    for index, job in enumerate(submission.jobs):
        code = folder.read_json(place / f"{index}.exit.json", int)
        if code is not None:
            ending = Ending.died if code < 0 else Ending.completed
            yield job.id, JobState(JobPhase.ended, _ending(code), ending)
        elif not alive:
            yield job.id, JobState(JobPhase.ended, "its runner died", Ending.died)
        elif (cards := folder.read_json(place / f"{index}.started.json", list)) is not None:
            named = f" ({', '.join(card[:_SHORT] for card in cards)})" if cards else ""
            yield job.id, JobState(JobPhase.running, node=f"{socket.gethostname()}{named}")
        else:
            yield job.id, JobState(JobPhase.queued)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    return signal.Signals(-code).name


def _runner(folder: SweepFolder, number: int) -> psutil.Process | None:
    """The runner of a submission, if it lives: a process of its id and its birth."""
    file = folder.submission_dir(number) / "runner.json"
    written = folder.read_json(file, lambda values: (int(values["pid"]), float(values["created"])))
    if written is None:
        return None
    pid, created = written
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - created) < 1
    except psutil.NoSuchProcess:
        return None
    return process if is_same and _is_alive(process) else None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
