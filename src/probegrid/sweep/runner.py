"""The process that runs the jobs of a submission on this machine, each as soon as there is room for it.

Knows processes: how a job is started, on which cards, and how it ended; `sweep.room` knows who has room.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import psutil

from probegrid.disk import locked
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.hardware.machine import visible_cards
from probegrid.sweep.room import Room
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Job, Submission

_MOST_OPEN = 256
"""Files that a runner may have open."""


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
    """Entry point of the runner: ``python -m probegrid.sweep.runner RESULTS_DIR SWEEP SUBMISSION``."""
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
