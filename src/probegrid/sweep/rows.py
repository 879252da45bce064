"""How each cell of a sweep is doing, from its state on disk and its job's state at the scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from probegrid.sweep.local import LocalScheduler
from probegrid.sweep.scheduler import JobPhase, JobState, Scheduler
from probegrid.sweep.slurm import SlurmScheduler
from probegrid.tracking.sweep_folder import CellState, Job, Manifest, Phase, Submission, SweepFolder


class Stage(StrEnum):
    """What a person is told of a cell."""

    done = "done"
    failed = "failed"
    running = "running"
    queued = "queued"
    lost = "lost"
    """Its job ended before it did."""
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
    """The failed cell's traceback; of a lost one, what its job printed."""
    job: str = ""
    """Id of the job that has or had it."""
    died: bool = False
    """Lost against everybody's will: it may be submitted again."""
    is_user_error: bool = False

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
    states = folder.read_states(len(manifest.cells))
    return [
        _row(folder, manifest, cell, state, latest.get(cell), job_states) for cell, state in enumerate(states)
    ]


def cancelled(rows: Sequence[CellRow]) -> list[CellRow]:
    """The rows as they stand once what was on its way has been cancelled; schedulers take their time to say so."""
    return [replace(row, stage=Stage.lost, detail="cancelled") if row.is_live else row for row in rows]


def latest_jobs(submissions: Sequence[Submission]) -> dict[int, tuple[Submission, Job]]:
    """The last job each cell was given to."""
    return {
        cell: (submission, job) for submission in submissions for job in submission.jobs for cell in job.cells
    }


def _row(
    folder: SweepFolder,
    manifest: Manifest,
    cell: int,
    state: CellState | None,
    latest: tuple[Submission, Job] | None,
    job_states: Mapping[int, Mapping[str, JobState]],
) -> CellRow:
    known = manifest.cells[cell]
    if known.was_done:
        return CellRow(cell, known.name, Stage.done, "done before")
    if known.invalid is not None:
        return CellRow(cell, known.name, Stage.invalid, known.invalid, is_user_error=True)
    if latest is None:
        return CellRow(cell, known.name, Stage.left)
    submission, job = latest
    if state is not None and state.phase is not Phase.running and state.submission == submission.number:
        return _ended(folder, cell, known.name, state, job)
    is_current = state is not None and state.submission == submission.number
    job_state = job_states[submission.number].get(job.id)
    stage, detail = _on_its_way(job_state, state if is_current else None)
    died = job_state is not None and job_state.died
    log = Path(job.log) if stage is Stage.lost else None
    return CellRow(cell, known.name, stage, detail, log, job.id, died=died)


def _ended(folder: SweepFolder, cell: int, name: str, state: CellState, job: Job) -> CellRow:
    if state.phase is Phase.done:
        return CellRow(cell, name, Stage.done, job=job.id)
    file = folder.traceback_file(cell)
    return CellRow(cell, name, Stage.failed, state.reason, file, job.id, is_user_error=state.is_user_error)


def _on_its_way(job: JobState | None, state: CellState | None) -> tuple[Stage, str]:
    if job is None:
        return Stage.unknown, "its scheduler does not answer"
    if job.phase is JobPhase.ended:
        return Stage.lost, f"its job ended: {job.reason}" if job.reason else "its job ended"
    if job.phase is JobPhase.queued:
        return Stage.queued, job.reason if job.reason != "None" else ""
    if state is None:
        return Stage.queued, "its job runs"
    return Stage.running, f"{state.step} {state.done}/{state.total}" if state.total else "starting"
