"""The jobs on this machine, each in its own process, so that each starts with free memory, and on cards of its own.

A runner of its own session starts each when there is room for it: it outlives the launcher that started it, and is
ended with all it started by one signal to its process group.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import psutil

from probegrid.disk import locked
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.hardware.machine import visible_cards
from probegrid.sweep.interrupts import uninterrupted
from probegrid.sweep.options import LocalOptions, plain
from probegrid.sweep.room import Room
from probegrid.sweep.scheduler import Ending, JobPhase, JobRequest, JobState, MakeCall
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Job, Submission

_TERM_WAIT_S = 5.0
_MOST_OPEN = 256
"""Files that a runner may have open."""
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
        submission = Submission(number, self.name, socket.gethostname(), jobs, plain(self._options))
        command = [sys.executable, "-m", __name__, str(folder.results_dir), folder.id, str(number)]
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
        """End the runner and the jobs it has."""
        runner = _runner(folder, submission.number)
        if runner is None:
            return
        for each in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(runner.pid, each)
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
        code = folder.read_json(place / f"{index}.exit.json")
        if code is not None:
            ending = Ending.died if code < 0 else Ending.completed
            yield job.id, JobState(JobPhase.ended, _ending(code), ending)
        elif not alive:
            yield job.id, JobState(JobPhase.ended, "its runner died", Ending.died)
        elif (cards := folder.read_json(place / f"{index}.started.json")) is not None:
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
    written = folder.read_json(folder.submission_dir(number) / "runner.json")
    if written is None:
        return None
    try:
        process = psutil.Process(written["pid"])
    except psutil.NoSuchProcess:
        return None
    is_same = abs(process.create_time() - written["created"]) < 1
    return process if is_same and _is_alive(process) else None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _Runner:
    """Starts the jobs of a submission in their order, each as soon as there is room for it."""

    def __init__(self, folder: SweepFolder, submission: Submission, room: Room) -> None:
        self._folder, self._submission, self._room = folder, submission, room
        self._place = folder.submission_dir(submission.number)
        self._waiting = list(range(len(submission.jobs)))
        self._running: dict[int, int] = {}
        """The job of each process."""

    def run(self) -> None:
        """Run all of them to their ends."""
        while True:
            self._start_what_has_room()
            if not self._running:
                return
            process, status = os.wait()
            if process in self._running:
                index = self._running.pop(process)
                self._room.let_go(index)
                code = os.waitstatus_to_exitcode(status)
                self._folder.write_json(self._place / f"{index}.exit.json", code)

    def _start_what_has_room(self) -> None:
        """Start jobs; one that has to wait for cards keeps those behind it from them, one for the CPU from that."""
        held_up: set[bool] = set()
        for index in list(self._waiting):
            job = self._submission.jobs[index]
            stop = self._folder.read_stop()
            if stop is not None and all(stop.covers(cell, self._submission.number) for cell in job.cells):
                self._waiting.remove(index)
                continue
            if self._room.is_of_cpu(job) in held_up:
                continue
            behind = [self._submission.jobs[each] for each in self._waiting if each >= index]
            cards = self._room.take(index, behind)
            if cards is None:
                held_up.add(self._room.is_of_cpu(job))
                continue
            self._waiting.remove(index)
            self._folder.write_json(self._place / f"{index}.started.json", list(cards))
            self._running[self._start(job, cards)] = index

    def _start(self, job: Job, cards: Sequence[str]) -> int:
        """Start a job, which sees its own cards alone; on a machine that has none it sees what there is."""
        words = [self._folder.results_dir, self._folder.id, self._submission.number, *job.cells]
        command = ["probegrid.sweep.worker", *map(str, words)]
        if self._forks:
            return _fork(command, Path(job.log))
        environment = dict(os.environ)
        if self._room.has_cards:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(cards)
        with Path(job.log).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        process.returncode = 0  # whoever waits for any of them has its status
        return process.pid

    @cached_property
    def _forks(self) -> bool:
        """Whether jobs are forked off this process, which has imported torch then, once for all: 4 s of CPU each.

        Only where no card is there to be given: what has asked CUDA for anything cannot be forked, and an import may.
        """
        if self._room.has_cards or sys.platform != "linux" or len(self._submission.jobs) == 1:
            return False
        import probegrid.cell.answer_probe
        import probegrid.cell.trained_probe
        import probegrid.inference.engine
        import probegrid.models.load
        import probegrid.readings.session
        import probegrid.sweep.worker  # noqa: F401

        return True


def _fork(command: list[str], log: Path) -> int:
    """Run the worker in a copy of this process, as if it had been started anew; return its number."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for stream_number in (1, 2):
            os.dup2(descriptor, stream_number)
        os.closerange(3, _MOST_OPEN)  # the runner's lock among them, which ends with the runner
        status = _status_of_worker(command)
    finally:
        os._exit(status)  # never back into the runner


def _status_of_worker(command: list[str]) -> int:
    from probegrid.sweep import worker

    sys.argv = command
    try:
        worker.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001  # as an interpreter does at its end
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status


def main() -> None:
    """Entry point of the runner: ``python -m probegrid.sweep.local RESULTS_DIR SWEEP SUBMISSION``."""
    results_dir, sweep, number = sys.argv[1:]
    folder = SweepFolder(Path(results_dir), sweep)
    submission = folder.read_submission(int(number))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # it was started while its launcher held signals back
    with locked(folder.path / ".runner.lock"):  # an earlier submission's runner may still be at work
        memory_gb = psutil.virtual_memory().total / BYTES_PER_GB
        _Runner(
            folder, submission, Room(visible_cards(), memory_gb, submission.options["max_parallel"])
        ).run()


if __name__ == "__main__":
    main()
