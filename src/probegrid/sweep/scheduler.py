"""What a sweep asks of whatever runs its jobs: submit, states, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from probegrid.schema import Resources
from probegrid.tracking.sweep_folder import Submission, SweepFolder


class JobPhase(Enum):
    """Where a job is."""

    queued = "queued"
    running = "running"
    ended = "ended"


@dataclass(frozen=True)
class JobState:
    """Where a job is, and why."""

    phase: JobPhase
    reason: str = ""
    """Why it waits (``Priority``), or how it ended (``NODE_FAIL``, ``signal 9``)."""
    died: bool = False
    """Ended against everybody's will: what is left of it may be submitted again."""


@dataclass(frozen=True)
class JobRequest:
    """A job to submit."""

    name: str
    cells: tuple[int, ...]
    resources: Resources


class Scheduler(Protocol):
    """Runs jobs."""

    name: str

    def submit(self, folder: SweepFolder, packs: Sequence[Sequence[JobRequest]]) -> Submission:
        """Submit the jobs of each pack, and write the submission.

        Raises:
            ConfigError: the scheduler refuses an option.
        """

    def states(self, folder: SweepFolder, submission: Submission) -> dict[str, JobState]:
        """Where each job is, by id; a job of which nothing can be learned now is left out."""

    def cancel(self, folder: SweepFolder, submission: Submission) -> None:
        """End what is left of a submission."""
