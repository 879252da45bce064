"""Ending a sweep on purpose: what is on its way is cancelled, and it is written down that this was meant."""

from __future__ import annotations

from collections.abc import Sequence

from probegrid.errors import RunError
from probegrid.sweep.interrupts import uninterrupted
from probegrid.sweep.local import LocalScheduler
from probegrid.sweep.rows import CellRow, Stage, cancelled, latest_jobs, observe, scheduler_of
from probegrid.sweep.scheduler import JobPhase
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Stop


def stop_sweep(folder: SweepFolder, why: str) -> list[CellRow]:
    """End what is left of a sweep, what runs included.

    Returns:
        How each cell ended; schedulers take their time to say so.

    Raises:
        RunError: the scheduler does not answer, or what runs is another user's, or on another machine; no cell is
            begun any more, but what runs goes on.
    """
    with uninterrupted():
        rows = observe(folder)
        _write(folder, why, [row.cell for row in rows if row.is_live])
        submissions = folder.read_submissions()
        for submission in submissions:
            scheduler_of(submission).cancel(folder, submission)
        latest = latest_jobs(submissions)
        unknown = [latest[row.cell][0] for row in rows if row.stage is Stage.unknown]
        elsewhere = sorted({each.host for each in unknown if each.scheduler == LocalScheduler.name})
        if elsewhere:
            raise RunError(
                f"what runs on {', '.join(elsewhere)}, if anything does, goes on until `probegrid action=cancel` ends "
                "it there; no further cell is begun."
            )
        return cancelled(rows, why)


def start_nothing_more(folder: SweepFolder, max_failures: int) -> None:
    """Let what runs end by itself, and take back the jobs that wait."""
    _write(folder, struck(max_failures), [row.cell for row in observe(folder) if row.is_live])
    for submission in folder.read_submissions():
        scheduler = scheduler_of(submission)
        states = scheduler.states(folder, submission)
        waiting = [job for job, state in states.items() if state.phase is JobPhase.queued]
        scheduler.withdraw(folder, submission, waiting)


def struck(max_failures: int) -> str:
    """Why a sweep ended of which too many cells failed."""
    return f"hydra.launcher.max_failures={max_failures} was reached"


def ended_by(folder: SweepFolder, rows: Sequence[CellRow]) -> str:
    """What ended cells of a sweep on purpose since it was last submitted; empty if nothing did."""
    stop = folder.read_stop()
    if stop is None or not any(row.stage is Stage.cancelled for row in rows):
        return ""
    return f"{stop.why}: no further cell was begun" if stop.submission == _last(folder) else ""


def _write(folder: SweepFolder, why: str, cells: list[int]) -> None:
    """Write down what is ended; the first reason stands."""
    last, before = _last(folder), folder.read_stop()
    if before is not None and before.submission == last:
        why, cells = before.why, sorted({*before.cells, *cells})
    if cells:
        folder.write_stop(Stop(why, tuple(cells), last))


def _last(folder: SweepFolder) -> int:
    """Number of the last submission."""
    return max((each.number for each in folder.read_submissions()), default=0)
