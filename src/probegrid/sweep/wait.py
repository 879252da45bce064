"""Waiting for a sweep: show it, submit again what died, stop when too much failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from probegrid.errors import StoreError
from probegrid.sweep.options import LauncherOptions
from probegrid.sweep.rows import CellRow, Stage, cancelled, latest_jobs, observe, scheduler_of
from probegrid.sweep.scheduler import JobRequest, Scheduler
from probegrid.sweep.table import LiveTable, say
from probegrid.tracking.sweep_folder import CellState, Job, Phase, SweepFolder


def wait(folder: SweepFolder, options: LauncherOptions, scheduler: Scheduler) -> list[CellRow]:
    """Wait until no cell is on its way any more.

    Returns:
        How each cell ended.
    """
    tries: Counter[int] = Counter()
    with LiveTable(folder) as table:
        while True:
            rows = observe(folder)
            table.show(rows)
            if options.max_failures is not None and _failures(rows) >= options.max_failures:
                return _stop(folder)
            died = [row for row in rows if row.died and row.stage is Stage.lost]
            again = [row.cell for row in died if tries[row.cell] < options.resubmit]
            if again:
                tries.update(again)
                try:
                    scheduler.submit(folder, _requests(folder, again))
                except StoreError as error:
                    say(f"not submitted again: {error}")
            elif not any(row.is_live for row in rows):
                return rows
            time.sleep(options.poll_s)


def _failures(rows: Sequence[CellRow]) -> int:
    return sum(row.stage is Stage.failed for row in rows)


def _stop(folder: SweepFolder) -> list[CellRow]:
    """End what is on its way."""
    for submission in folder.read_submissions():
        scheduler_of(submission).cancel(folder, submission)
    return cancelled(observe(folder))


def _requests(folder: SweepFolder, cells: Sequence[int]) -> list[list[JobRequest]]:
    """The jobs that died again, without what ended in them, the cell that was running last: it may be why."""
    latest = latest_jobs(folder.read_submissions())
    jobs: dict[str, Job] = {latest[cell][1].id: latest[cell][1] for cell in cells}
    requests = []
    for job in jobs.values():
        left = [cell for cell in job.cells if cell in cells]
        left.sort(key=lambda cell: _was_running(folder.read_state(cell)))
        requests.append([JobRequest(job.name, tuple(left), job.resources)])
    return requests


def _was_running(state: CellState | None) -> bool:
    return state is not None and state.phase is Phase.running
