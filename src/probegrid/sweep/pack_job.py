"""A job as submitit pickles it: only names, for everything else is on disk. Imports nothing that a model needs."""

from __future__ import annotations

from dataclasses import dataclass

from probegrid.errors import RunError
from probegrid.tracking.sweep_folder import SweepFolder


@dataclass(frozen=True)
class PackJob:
    """The cells of a job, by their numbers in a sweep."""

    results_dir: str
    sweep: str
    submission: int
    cells: tuple[int, ...]

    def __call__(self) -> None:
        """Run the cells that have not ended yet; then let a job that waits have this one's place.

        Raises:
            RunError: a cell failed, so that the scheduler shows the job as failed.
        """
        from probegrid.sweep.requeue import requeueing
        from probegrid.sweep.worker import run_cells

        folder = SweepFolder(self.results_dir, self.sweep)
        with requeueing(folder, self.submission):
            try:
                run_cells(folder, self.submission, self.cells)
            except RunError:
                self._leave(folder)
                raise
            self._leave(folder)

    def _leave(self, folder: SweepFolder) -> None:
        from probegrid.sweep import lanes
        from probegrid.sweep.requeue import job_id

        options = folder.read_submission(self.submission).options
        lanes.fill(folder, options["max_parallel"], options["extra"].get("dependency") or "", job_id())
