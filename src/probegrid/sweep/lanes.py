"""At most so many jobs of a sweep at once on a cluster that counts only a user's or an array's.

Every job beyond them waits for the end of one that runs (``--dependency``), so that the limit holds with nobody
looking. Such lanes run dry at different times: whoever looks (a waiting launcher, a job at its end) gives a free
one to a job that waits in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from filelock import Timeout

from probegrid.disk import locked
from probegrid.sweep import slurm_queue
from probegrid.sweep.slurm_queue import Listed
from probegrid.tracking.sweep_folder import SweepFolder

LOCK = ".lanes.lock"
"""Held in a sweep's folder by whoever decides which of its jobs waits for which."""
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class _Held:
    """A job, or an array, that has not ended."""

    slots: int
    """Jobs of it that may run at once."""
    after: str | None
    """Whom it waits for."""


class Lanes:
    """Who runs and who waits for whom; plain bookkeeping, in the order of submission."""

    def __init__(self, most: int) -> None:
        """Let at most ``most`` run at once."""
        self._most = most
        self._held: dict[str, _Held] = {}

    @property
    def is_empty(self) -> bool:
        """Whether every job has ended."""
        return not self._held

    def add(self, job: str, after: str | None = None, slots: int = 1) -> None:
        """Count a job in, or an array by the id before its tasks' numbers."""
        self._held[job] = _Held(min(slots, self._most), after)

    def turn(self) -> str | None:
        """Whom the next job waits for: nobody while there is room, else the job that will end first."""
        if self._running() < self._most:
            return None
        open_ended = [job for job, held in self._held.items() if len(self._followers(job)) < held.slots]
        return min(open_ended, key=self._depth)

    def free(self, leaving: str | None = None) -> list[str]:
        """Jobs that wait although there is room; they count as running from now on.

        Args:
            leaving: a job that counts as ended.
        """
        self._held.pop(leaving or "", None)
        waiting = [job for job, held in self._held.items() if held.after in self._held]
        found = waiting[: max(0, self._most - self._running())]
        for job in found:
            self.add(job)
        return found

    def _running(self) -> int:
        return sum(held.slots for held in self._held.values() if held.after not in self._held)

    def _followers(self, job: str) -> list[str]:
        return [other for other, held in self._held.items() if held.after == job]

    def _depth(self, job: str) -> int:
        after = self._held[job].after
        return 0 if after is None or after not in self._held else 1 + self._depth(after)


def lanes_of(folder: SweepFolder, queue: Mapping[str, Listed], most: int) -> Lanes:
    """The lanes of a sweep as they stand."""
    lanes, tasks = Lanes(most), dict[str, int]()
    live = [
        (job.id, queue[job.id])
        for submission in folder.read_submissions()
        for job in submission.jobs
        if job.id in queue and (queue[job.id].is_queued or queue[job.id].is_running)
    ]
    for job, _ in live:
        tasks[array_of(job)] = tasks.get(array_of(job), 0) + 1
    for job, listed in live:
        after = next((other for other in listed.after if other in tasks), None)
        lanes.add(array_of(job), after, tasks[array_of(job)])
    return lanes


def fill(folder: SweepFolder, most: int | None, dependency: str = "", leaving: str | None = None) -> None:
    """Let jobs of a sweep that wait start where fewer than ``most`` run.

    Args:
        folder: the sweep.
        most: None for no limit, so that nobody waits.
        dependency: what the user lets every job wait for.
        leaving: a job that is about to end; its lane is given away.
    """
    if most is None:
        return
    try:
        with locked(folder.path / LOCK, _LOCK_TIMEOUT_S):
            queue = slurm_queue.queue()
            for job in lanes_of(folder, queue or {}, most).free(leaving):
                slurm_queue.wait_for(job, joined(dependency, leaving))
    except Timeout:
        return  # another is at it


def joined(dependency: str, after: str | None) -> str:
    """The user's dependency and a lane's."""
    return ",".join(filter(None, (dependency, after and f"afterany:{after}")))


def array_of(job: str) -> str:
    """The id of an array by that of one of its tasks; any other job's own."""
    return job.partition("_")[0]
