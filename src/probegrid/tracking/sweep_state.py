"""What is known of a sweep: its cells and jobs as they were submitted, and how each is doing. Plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from probegrid.disk import user_name
from probegrid.schema import Resources


class Phase(StrEnum):
    """What a worker says of a cell."""

    running = "running"
    done = "done"
    failed = "failed"


@dataclass(frozen=True)
class CellState:
    """How a cell is doing, by the worker that has it; ``states/<n>.json``."""

    phase: Phase
    submission: int
    """The submission whose job has the cell."""
    step: str = ""
    """What is being counted (``answers``)."""
    done: int = 0
    total: int = 0
    reason: str = ""
    """Why it failed: the exception's class and message."""
    is_user_error: bool = False
    """Whether it failed by the user's mistake."""
    unsent: str = ""
    """Why MLflow does not have what it found; empty where it has, or was not to get it."""
    host: str = ""
    pid: int = 0
    started: float = 0.0
    """When its worker began it, in seconds since the epoch."""
    beat: float = 0.0
    """When this was written."""
    left_s: float | None = None
    """Seconds that the step has left, by its speed so far; None: nothing was counted yet."""
    tokens_per_s: float | None = None
    """Speed of the step so far; None: no token was counted."""


@dataclass(frozen=True)
class ManifestCell:
    """A cell of the sweep as it was submitted."""

    name: str
    """Name for people, different for each cell of the sweep."""
    overrides: tuple[str, ...]
    """What it was composed from."""
    key: str | None = None
    """Name of its folder below ``results_dir``; None where it cannot work."""
    was_done: bool = False
    """Whether it was recorded as done before this submission."""
    invalid: str | None = None
    """Why it cannot work."""


@dataclass(frozen=True)
class Manifest:
    """A sweep as it was last submitted; ``manifest.json``."""

    id: str
    cells: tuple[ManifestCell, ...]
    argv: tuple[str, ...]
    """The command line, secrets removed."""
    cwd: str
    host: str
    git_commit: str | None
    versions: Mapping[str, str]
    launcher: Mapping[str, Any]
    """The launcher's options, as plain values."""
    since: float = 0.0
    """When it was submitted, in seconds since the epoch: under ``force=true`` what was read before is read again."""


@dataclass(frozen=True)
class Job:
    """One job of a submission."""

    id: str
    """The scheduler's id."""
    name: str
    cells: tuple[int, ...]
    """Numbers of its cells, in the order they run."""
    resources: Resources
    log: str
    """Path of what it prints."""
    cards: int | None = 0
    """GPUs that it must see, on this machine; None: it is not known, all."""
    takes_more: bool = False
    """Whether it makes use of more, as many times as many."""


@dataclass(frozen=True)
class Submission:
    """What was submitted at once; ``submissions/<number>.json``."""

    number: int
    scheduler: str
    """``local`` or ``slurm``."""
    host: str
    jobs: tuple[Job, ...] = field(default=())
    options: Mapping[str, Any] = field(default_factory=dict)
    """The launcher's options, as plain values, that its jobs were submitted with."""
    user: str = ""
    """Whose jobs they are; empty where it was not written down, as it once was not."""

    @property
    def is_anothers(self) -> bool:
        """Whether its jobs are another user's, so that this one can hardly end them."""
        return self.user not in ("", user_name(os.getuid()))


@dataclass(frozen=True)
class JobNote:
    """What a job says of itself; ``submissions/<k>/<job>.json``, written by the job alone."""

    restarts: tuple[str, ...] = ()
    """Why it was started again, a word or two each time."""


@dataclass(frozen=True)
class Stop:
    """A deliberate end of what was on its way; ``stop.json``. Jobs start none of its cells any more."""

    why: str
    """``action=cancel``, ``Ctrl-C``, ``hydra.launcher.max_failures=3``."""
    cells: tuple[int, ...]
    """Numbers of the cells that had not ended."""
    submission: int
    """Number of the last submission it ends: a later one starts its cells again."""

    def covers(self, cell: int, submission: int) -> bool:
        """Whether a cell of a submission is not to be started."""
        return cell in self.cells and submission <= self.submission
