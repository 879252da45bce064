"""Waiting for a sweep: show it, submit again what died, stop when too much failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from probegrid.errors import ProbegridError
from probegrid.sweep.options import LauncherOptions
from probegrid.sweep.pack_job import PackJob
from probegrid.sweep.rows import CellRow, Stage, latest_jobs, observe
from probegrid.sweep.scheduler import JobRequest, Scheduler
from probegrid.sweep.stop import stop_sweep, struck
from probegrid.sweep.table import LiveTable
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import CellState, Job, Phase


def wait(folder: SweepFolder, options: LauncherOptions, scheduler: Scheduler) -> list[CellRow]:
    """Wait until no cell is on its way any more.

    Returns:
        How each cell ended.
    """
    tries: Counter[int] = Counter()
    restarts = _Restarts(folder)
    with LiveTable(folder) as table:
        while True:
            rows = observe(folder)
            table.show(rows)
            for line in restarts.news():
                table.note(line)
            if options.max_failures is not None and _failures(rows) >= options.max_failures:
                return stop_sweep(folder, struck(options.max_failures))
            died = [row for row in rows if row.died and row.stage is Stage.lost]
            again = [row for row in died if tries[row.cell] < options.resubmit]
            if again:
                tries.update(row.cell for row in again)
                for line in _submit_again(folder, scheduler, again, tries, options):
                    table.note(line)
            elif not any(row.is_live for row in rows):
                return rows
            else:
                scheduler.fill(folder)
            time.sleep(options.poll_s)


class _Restarts:
    """The jobs that SLURM started again, each restart told once."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._told: Counter[str] = Counter()
        self.news()  # what happened before is no news

    def news(self) -> list[str]:
        """A line a restart since the last look."""
        lines = []
        for submission in self._folder.read_submissions():
            for job in submission.jobs:
                restarts = self._folder.read_note(submission.number, job.id).restarts
                for number, why in enumerate(restarts, start=1):
                    if number > self._told[job.id]:
                        lines.append(f"job {job.id} ({job.name}) starts again after {why}, restart {number}")
                self._told[job.id] = len(restarts)
        return lines


def _failures(rows: Sequence[CellRow]) -> int:
    return sum(row.stage is Stage.failed for row in rows)


def _submit_again(
    folder: SweepFolder,
    scheduler: Scheduler,
    died: Sequence[CellRow],
    tries: Counter[int],
    options: LauncherOptions,
) -> list[str]:
    """Submit what is left of the jobs that died, each for itself and as often as before; return a line on each."""
    why = {row.job: row.detail for row in died}
    jobs, each = _jobs_of(folder, died), options.jobs_per_cell
    requests = [
        [JobRequest(job.name, cells, job.resources, job.cards, job.takes_more)] * each for job, cells in jobs
    ]
    try:
        submitted = scheduler.submit(folder, requests, PackJob).jobs[::each]
    except ProbegridError as error:
        return [f"not submitted again: {error}"]
    most = options.resubmit
    return [
        f"job {job.id} ({job.name}): {why[job.id]}; {len(cells)} of its {len(job.cells)} cells submitted again "
        f"as job {new.id}, try {tries[cells[0]] + 1} of {most + 1}"
        for (job, cells), new in zip(jobs, submitted, strict=True)
    ]


def _jobs_of(folder: SweepFolder, died: Sequence[CellRow]) -> list[tuple[Job, tuple[int, ...]]]:
    """The jobs that had these cells and what is left of each, the cell that was running last: it may be why."""
    latest, cells = latest_jobs(folder.read_submissions()), [row.cell for row in died]
    jobs = {job.id: job for row in died for job in latest[row.cell][1] if job.id == row.job}
    found = []
    for job in jobs.values():
        left = [cell for cell in job.cells if cell in cells]
        left.sort(key=lambda cell: _was_running(folder.read_state(cell)))
        found.append((job, tuple(left)))
    return found


def _was_running(state: CellState | None) -> bool:
    return state is not None and state.phase is Phase.running
