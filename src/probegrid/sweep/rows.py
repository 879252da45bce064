"""How each cell of a sweep is doing, from its state on disk and its job's state at the scheduler."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from probegrid.sweep.local import LocalScheduler
from probegrid.sweep.scheduler import Ending, JobPhase, JobState, Scheduler
from probegrid.sweep.slurm import SlurmScheduler
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import CellState, Job, Manifest, Phase, Stop, Submission


class Stage(StrEnum):
    """What a person is told of a cell."""

    done = "done"
    failed = "failed"
    running = "running"
    queued = "queued"
    cancelled = "cancelled"
    """Somebody ended it, or the sweep."""
    lost = "lost"
    """Its job ended before it did, and nobody meant it to."""
    invalid = "invalid"
    """It cannot work and was not submitted."""
    left = "not submitted"
    unknown = "unknown"
    """Its scheduler says nothing."""


@dataclass(frozen=True)
class CellRow:
    """One line of the table."""

    cell: int
    name: str
    stage: Stage
    detail: str = ""
    """Progress, or the reason."""
    traceback: Path | None = None
    """The failed cell's traceback; of one that runs, or that its job took along, what the job prints. Always there."""
    job: str = ""
    """Id of the job that has or had it."""
    node: str = ""
    """Where it runs."""
    elapsed_s: float | None = None
    """Seconds since it began, while it runs."""
    left_s: float | None = None
    """Seconds that its step has left by its speed so far; before there is one, seconds to its job's time limit."""
    died: bool = False
    """Lost against everybody's will: it may be submitted again."""
    is_user_error: bool = False
    unsent: str = ""
    """Why MLflow does not have what it found."""

    @property
    def is_live(self) -> bool:
        """Whether it is still on its way."""
        return self.stage in (Stage.running, Stage.queued, Stage.unknown)


def scheduler_of(submission: Submission) -> Scheduler:
    """The scheduler that has a submission's jobs."""
    return SlurmScheduler() if submission.scheduler == SlurmScheduler.name else LocalScheduler()


def observe(folder: SweepFolder) -> list[CellRow]:
    """Look at every cell of a sweep now.

    The schedulers are asked before the states are read: a worker writes how a cell ended before its job ends.
    """
    manifest = folder.read_manifest()
    latest = latest_jobs(folder.read_submissions())
    asked = {submission.number: submission for submission, _ in latest.values()}
    job_states = {
        number: scheduler_of(submission).states(folder, submission) for number, submission in asked.items()
    }
    telling = {
        cell: (submission, _telling(jobs, job_states[submission.number]))
        for cell, (submission, jobs) in latest.items()
    }
    states, stop = folder.read_states(len(manifest.cells)), folder.read_stop()
    return [
        _row(folder, manifest, cell, state, telling.get(cell), job_states, stop)
        for cell, state in enumerate(states)
    ]


def cancelled(rows: Sequence[CellRow], why: str) -> list[CellRow]:
    """The rows as they stand once what was on its way has been cancelled; schedulers take their time to say so."""
    return [replace(row, stage=Stage.cancelled, detail=why) if row.is_live else row for row in rows]


def latest_jobs(submissions: Sequence[Submission]) -> dict[int, tuple[Submission, tuple[Job, ...]]]:
    """The last jobs each cell was given to: one, or those that share it."""
    found: dict[int, tuple[Submission, tuple[Job, ...]]] = {}
    for submission in submissions:
        of_cells: dict[int, tuple[Job, ...]] = {}
        for job in submission.jobs:
            for cell in job.cells:
                of_cells[cell] = (*of_cells.get(cell, ()), job)
        found |= {cell: (submission, jobs) for cell, jobs in of_cells.items()}
    return found


_TELLING = (Ending.died, Ending.hopeless, Ending.cancelled, Ending.completed)


def _telling(jobs: Sequence[Job], states: Mapping[str, JobState]) -> Job:
    """Of the jobs that share a cell the one that says how it is doing: one that runs, else waits, else died."""

    def rank(job: Job) -> tuple[int, int]:
        state = states.get(job.id)
        if state is None or state.ending is None:
            return (1, 0) if state is None else (0 if state.phase is JobPhase.running else 2, 0)
        return 3, _TELLING.index(state.ending)

    return min(jobs, key=rank)


def _row(
    folder: SweepFolder,
    manifest: Manifest,
    cell: int,
    state: CellState | None,
    latest: tuple[Submission, Job] | None,
    job_states: Mapping[int, Mapping[str, JobState]],
    stop: Stop | None,
) -> CellRow:
    known = manifest.cells[cell]
    if known.was_done:
        return CellRow(cell, known.name, Stage.done, "done before")
    if known.invalid is not None:
        return CellRow(cell, known.name, Stage.invalid, known.invalid, is_user_error=True)
    if latest is None:
        return CellRow(cell, known.name, Stage.left)
    submission, job = latest
    if state is not None and state.submission != submission.number:
        state = None
    if state is not None and state.phase is not Phase.running:
        return _ended(folder, cell, known.name, state, job)
    row = CellRow(cell, known.name, Stage.unknown, _why_unknown(submission), job=job.id)
    is_stopped = stop is not None and stop.covers(cell, submission.number)
    return _on_its_way(
        row, job, job_states[submission.number].get(job.id), state, stop if is_stopped else None
    )


def _why_unknown(submission: Submission) -> str:
    if submission.scheduler == LocalScheduler.name:
        return f"it was started on {submission.host}, which alone can say"
    if submission.is_anothers:
        return f"its scheduler says nothing of {submission.user}'s job"
    return "its scheduler does not answer"


def _ended(folder: SweepFolder, cell: int, name: str, state: CellState, job: Job) -> CellRow:
    if state.phase is Phase.done:
        return CellRow(cell, name, Stage.done, job=job.id, unsent=state.unsent)
    file = folder.traceback_file(cell)
    return CellRow(
        cell, name, Stage.failed, state.reason, _there(file), job=job.id, is_user_error=state.is_user_error
    )


def _on_its_way(
    row: CellRow, job: Job, now: JobState | None, state: CellState | None, stop: Stop | None
) -> CellRow:
    """A cell that has not ended by its own word."""
    if now is None:
        return row
    if now.phase is JobPhase.running and state is not None:
        return _running(replace(row, traceback=_there(Path(job.log))), now, state)
    if stop is not None:  # whoever has the cell begins it no more
        return replace(row, stage=Stage.cancelled, detail=stop.why)
    if now.phase is JobPhase.ended:
        return _taken_along(replace(row, traceback=_there(Path(job.log))), now)
    return replace(
        row, stage=Stage.queued, detail="its job runs" if now.phase is JobPhase.running else now.reason
    )


def _running(row: CellRow, job: JobState, state: CellState) -> CellRow:
    now = time.time()
    elapsed_s = max(0.0, now - state.started)
    left_s = job.left_s if state.left_s is None else max(0.0, state.left_s - (now - state.beat))
    node = job.node or state.host
    said = [f"{state.step} {state.done}/{state.total}" if state.total else "starting", span(elapsed_s)]
    if state.tokens_per_s is not None:
        said.append(f"{state.tokens_per_s:.0f} tokens/s")
    if left_s is not None:
        said.append(
            f"about {span(left_s)} left" if state.left_s is not None else f"{span(left_s)} to its limit"
        )
    detail = ", ".join((*said, f"on {node}"))
    return replace(row, stage=Stage.running, detail=detail, node=node, elapsed_s=elapsed_s, left_s=left_s)


def _taken_along(row: CellRow, job: JobState) -> CellRow:
    """A cell whose job ended before it."""
    if job.ending is Ending.cancelled:
        return replace(row, stage=Stage.cancelled, detail=job.reason)
    if job.ending is Ending.hopeless:
        return replace(row, stage=Stage.failed, detail=job.reason)
    detail = f"its job ended: {job.reason}" if job.reason else "its job ended"
    return replace(row, stage=Stage.lost, detail=detail, died=job.ending is Ending.died)


def span(seconds: float) -> str:
    """A time as a person says it.

    >>> span(42), span(125), span(7300)
    ('42 s', '2 min', '2 h 02 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _there(file: Path) -> Path | None:
    """A file that can be looked at."""
    return file if file.exists() else None
