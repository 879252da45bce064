"""What runs inside a job: its cells one after another, the model held between them, each state on disk.

Knows how to run a cell and what to do when it fails.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from probegrid.cell.pack import Pack
from probegrid.cell.run import share_cell
from probegrid.disk import full_disk
from probegrid.errors import RunError, StoreError, UserError
from probegrid.hardware.threads import share_cores
from probegrid.models.load import LoadedModel
from probegrid.models.pool import ModelPool
from probegrid.models.request import ModelRequest
from probegrid.schema import CellSpec, to_plain
from probegrid.sweep.cell_jobs import CellJobs, has_ended
from probegrid.sweep.heartbeat import Heartbeat
from probegrid.sweep.options import OnInterrupt
from probegrid.tracking.redaction import hide_in_tracebacks, redact, redacted_traceback, remember
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import CellState, Manifest, Phase

_MAX_REASON_LENGTH = 400


def run_cells(folder: SweepFolder, submission: int, cells: Sequence[int]) -> None:
    """Run cells one after another, whatever becomes of each, but for those that ended in this submission.

    Raises:
        RunError: a cell failed, or was not begun, for the sweep was ended; or the disk is full.
    """
    share_cores()
    manifest, configs = folder.read_manifest(), folder.read_cells()
    hide_in_tracebacks()
    remember([to_plain(found.config) for found in configs if found is not None])
    sys.argv = list(manifest.argv)  # so that records name the user's command, not this process's
    left = [cell for cell in cells if not has_ended(folder.read_state(cell), submission)]
    specs = {cell: found for cell in left if (found := configs[cell])}
    with Pack(list(specs.values()), pool=ReportingPool()) as pack:
        each = int(folder.read_submission(submission).options.get("jobs_per_cell", 1))
        handed_over, broken = _run_all(_Job(folder, manifest, submission, pack, each), specs)
    if manifest.launcher["detach"] or manifest.launcher["on_interrupt"] == OnInterrupt.detach.name:
        _close_if_last(folder)
    states = [folder.read_state(cell) for cell in cells if cell not in handed_over]
    failed = sum(state is not None and state.phase is Phase.failed for state in states)
    waiting = sum(not has_ended(state, submission) for state in states)
    if failed or waiting or broken:
        raise RunError(
            f"{failed or broken} of the {len(cells)} cells of this job failed, {waiting} were not begun; "
            f"see {folder.path}."
        )


@dataclass(frozen=True)
class _Job:
    """What is the same for all cells of a job."""

    folder: SweepFolder
    manifest: Manifest
    submission: int
    pack: Pack
    jobs_per_cell: int
    """Jobs that have each of the cells."""


def _run_all(job: _Job, specs: Mapping[int, CellSpec]) -> tuple[set[int], int]:
    """Run the cells in turn; those that another job has from here are looked at again at the end, for it may die.

    Returns:
        The cells that other jobs have now, and how many failed here that others go on with.
    """
    left, handed_over, broken = list(specs), set[int](), 0
    while left:
        again = []
        for cell in left:
            if _is_stopped(job.folder, job.submission, cell, job.manifest.launcher["max_failures"]):
                return handed_over, broken
            if has_ended(job.folder.read_state(cell), job.submission):
                continue
            ending = _run(job, cell, specs[cell])
            broken += ending is _Ending.broken
            if ending is not _Ending.ended:
                handed_over.add(cell)
            if ending is _Ending.handed_over:
                again.append(cell)
        left = [cell for cell in again if _is_left(job, cell)]
        handed_over -= set(left)
    return handed_over, broken


def _is_left(job: _Job, cell: int) -> bool:
    """Whether whoever had a cell in its hands is gone, and the cell has not ended."""
    if has_ended(job.folder.read_state(cell), job.submission):
        return False
    return not CellJobs(job.folder, job.submission, cell, job.jobs_per_cell).is_being_evaluated()


def _is_stopped(folder: SweepFolder, submission: int, cell: int, max_failures: int | None) -> bool:
    """Whether the sweep was ended, by somebody or now by too many failures."""
    if max_failures is not None and count_failed(folder, submission) >= max_failures:
        from probegrid.sweep.stop import start_nothing_more

        start_nothing_more(folder, max_failures)
    stop = folder.read_stop()
    return stop is not None and stop.covers(cell, submission)


def _close_if_last(folder: SweepFolder) -> None:
    """Write the summary where no launcher waits to do it; every job that might be the last one does."""
    from probegrid.sweep.close import close_sweep
    from probegrid.sweep.rows import observe

    rows = observe(folder)
    if not any(row.is_live for row in rows):
        close_sweep(folder, rows)


def count_failed(folder: SweepFolder, submission: int) -> int:
    """Cells of the sweep that failed since (and including) this submission."""
    states = folder.read_states(len(folder.read_manifest().cells))
    return sum(
        state is not None and state.phase is Phase.failed and state.submission >= submission
        for state in states
    )


class ReportingPool(ModelPool):
    """Prints a line for each model it loads."""

    def __init__(self) -> None:
        super().__init__()
        self._reported: LoadedModel | None = None

    def get(self, request: ModelRequest, deepest_layer: int | None = None) -> LoadedModel:
        """The model of this request, loaded if it is not held."""
        loaded = super().get(request, deepest_layer)
        if loaded is not self._reported:
            print(f"loaded {request.checkpoint.name} in {loaded.load_s:.1f} s", flush=True)
            self._reported = loaded
        return loaded

    def release(self) -> None:
        """Free the model that is held."""
        self._reported = None
        super().release()


class _Ending(Enum):
    """How this job's part in a cell ended."""

    ended = "ended"
    """The cell is done, or failed."""
    handed_over = "handed over"
    """Another job evaluates it."""
    broken = "broken"
    """It failed here, and other jobs go on with it."""


def _run(job: _Job, cell: int, spec: CellSpec) -> _Ending:
    """Run one cell and write how it ended; the boundary at which a failure is recorded and the pack goes on.

    Raises:
        StoreError: not even how it ended could be written.
    """
    if job.jobs_per_cell == 1:
        return _run_as(job, cell, spec, None)
    with CellJobs(job.folder, job.submission, cell, job.jobs_per_cell) as jobs:
        return _run_as(job, cell, spec, jobs)


def _run_as(job: _Job, cell: int, spec: CellSpec, jobs: CellJobs | None) -> _Ending:
    folder, now = job.folder, time.time()
    state = CellState(
        Phase.running, job.submission, host=socket.gethostname(), pid=os.getpid(), started=now, beat=now
    )
    if jobs is not None:
        state = replace(state, started=jobs.began)

    def write_running(state: CellState) -> None:
        if jobs is None or not has_ended(folder.read_state(cell), job.submission):  # another may be quicker
            folder.write_state(cell, state)

    write_running(state)
    heartbeat = Heartbeat(
        lambda step, done, total, left_s, rate: write_running(
            replace(
                state, step=step, done=done, total=total, left_s=left_s, tokens_per_s=rate, beat=time.time()
            )
        ),
        *([] if jobs is None else [jobs.has_read]),
    )
    try:
        with full_disk(folder.path):  # the job's own log may be what has no room
            result = share_cell(
                spec,
                jobs,
                pack=job.pack,
                sweep=folder.id,
                since=job.manifest.since,
                progress=heartbeat,
                key=job.manifest.cells[cell].key,
            )
    except Exception as error:  # noqa: BLE001  # a cell must not take its pack along; the job fails at its end
        text = redacted_traceback(error)
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)
        if jobs is not None and (jobs.others_go_on() or has_ended(folder.read_state(cell), job.submission)):
            return _Ending.broken
        with suppress(StoreError):
            folder.write_text(folder.traceback_file(cell), text)
        reason = redact(f"{type(error).__name__}: {error}")[:_MAX_REASON_LENGTH]
        state = replace(state, phase=Phase.failed, reason=reason, is_user_error=isinstance(error, UserError))
    else:
        if result is None:
            return _Ending.handed_over
        state = replace(state, phase=Phase.done, unsent=redact(result.unsent or "")[:_MAX_REASON_LENGTH])
    folder.write_state(cell, state)
    return _Ending.ended


def main() -> None:
    """Entry point of a local job: ``python -m probegrid.sweep.worker RESULTS_DIR SWEEP SUBMISSION CELL...``."""
    results_dir, sweep, submission, *cells = sys.argv[1:]
    try:
        run_cells(SweepFolder(Path(results_dir), sweep), int(submission), [int(cell) for cell in cells])
    except RunError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
