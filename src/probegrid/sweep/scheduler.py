"""What a sweep asks of whatever runs its jobs: submit, states, fill, cancel, withdraw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from probegrid.schema import Resources
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Submission

MakeCall = Callable[[str, str, int, tuple[int, ...]], Callable[[], None]]
"""From (results_dir, sweep, submission, cells) to what a job calls where it runs; it is pickled on the way."""


class JobPhase(Enum):
    """Where a job is."""

    queued = "queued"
    running = "running"
    ended = "ended"


class Ending(Enum):
    """How a job ended."""

    completed = "completed"
    """By itself."""
    cancelled = "cancelled"
    """Somebody wanted it to."""
    hopeless = "hopeless"
    """For a reason that a second try would meet again."""
    died = "died"
    """Against everybody's will: what is left of it may be submitted again."""


@dataclass(frozen=True)
class JobState:
    """Where a job is, and why."""

    phase: JobPhase
    reason: str = ""
    """Why it waits (``Priority``), or how it ended (``NODE_FAIL``, ``signal 9``)."""
    ending: Ending | None = None
    """None while it has not ended."""
    node: str = ""
    """Where it runs."""
    left_s: float | None = None
    """Seconds to its time limit; None: it has none, or it is not known."""


@dataclass(frozen=True)
class JobRequest:
    """A job to submit."""

    name: str
    cells: tuple[int, ...]
    resources: Resources
    cards: int | None = 0
    """GPUs that it must see where it is given them by name; None: it is not known, all."""
    takes_more: bool = False
    """Whether it makes use of more (``device_map.replicas=auto``), as many times as many."""


class Scheduler(Protocol):
    """Runs jobs."""

    name: str

    def submit(
        self, folder: SweepFolder, packs: Sequence[Sequence[JobRequest]], make_call: MakeCall
    ) -> Submission:
        """Submit the jobs of each pack, and write the submission as it grows: an interrupt leaves no job unknown.

        Raises:
            ConfigError: the scheduler refuses an option; nothing is left of what was submitted.
        """

    def states(self, folder: SweepFolder, submission: Submission) -> dict[str, JobState]:
        """Where each job is, by id; a job of which nothing can be learned now is left out."""

    def fill(self, folder: SweepFolder) -> None:
        """Let a waiting job start where fewer run than may; called now and then while the sweep is on its way."""

    def cancel(self, folder: SweepFolder, submission: Submission) -> None:
        """End what is left of a submission.

        Raises:
            RunError: the scheduler does not answer, so that jobs may go on.
        """

    def withdraw(self, folder: SweepFolder, submission: Submission, jobs: Sequence[str]) -> set[str]:
        """Take back jobs that still wait; return the ids of those that had not started meanwhile."""
