"""A job as submitit pickles it: only names, for everything else is on disk. Imports nothing that a model needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probegrid.tracking.sweep_folder import SweepFolder


@dataclass(frozen=True)
class PackJob:
    """The cells of a job, by their numbers in a sweep."""

    results_dir: str
    sweep: str
    submission: int
    cells: tuple[int, ...]

    def __call__(self) -> None:
        """Run the cells that have not ended yet.

        Raises:
            RunError: a cell failed, so that the scheduler shows the job as failed.
        """
        from probegrid.sweep.worker import run_cells

        run_cells(SweepFolder(self.results_dir, self.sweep), self.submission, self.cells)

    def checkpoint(self) -> Any:
        """What submitit submits when the job is preempted or out of time: the same again, its progress is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
