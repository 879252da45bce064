"""The flow of a sweep: compose, check, pack, submit, wait, report.

Knows the order of the steps and what makes a sweep go on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import Timeout

from probegrid.disk import disk_errors, locked
from probegrid.errors import ConfigError, ProbegridError, RunError, TrackingError, UserError
from probegrid.progress import Progress
from probegrid.schema import Config
from probegrid.sweep.check import CheckedCell, Checker, has_all, refusals
from probegrid.sweep.close import close_sweep, open_sweep
from probegrid.sweep.grid import ComposedCell, cell_names, told_apart
from probegrid.sweep.interrupts import interruptible, name_of, quietly
from probegrid.sweep.local import LocalScheduler
from probegrid.sweep.options import LauncherOptions, LocalOptions, OnInterrupt, SlurmOptions, plain
from probegrid.sweep.pack_job import PackJob
from probegrid.sweep.packs import pack
from probegrid.sweep.queued import take_back_changed
from probegrid.sweep.rows import CellRow, Stage, latest_jobs, observe
from probegrid.sweep.scheduler import JobRequest, Scheduler
from probegrid.sweep.slurm import SlurmScheduler
from probegrid.sweep.slurm_script import check_names, check_options
from probegrid.sweep.stop import ended_by, stop_sweep
from probegrid.sweep.table import counts, print_table, say
from probegrid.sweep.wait import wait
from probegrid.tracking.provenance import git_commit, own_argv, uncommitted_changes, versions
from probegrid.tracking.redaction import redact, redact_override
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Manifest, ManifestCell

_ID_LENGTH = 10
_NO_PART_OF_A_SWEEP = ("action=", "report.", "force=", "model.resources.")
"""Overrides that change what is done with a sweep, or what its jobs ask for, and no cell."""


@dataclass(frozen=True)
class Sweep:
    """The cells of a sweep, looked at, and where it is kept."""

    folder: SweepFolder
    names: list[str]
    checked: list[CheckedCell]
    options: LauncherOptions
    since: float
    """When the command began, in seconds since the epoch."""


def run_sweep(
    composed: Sequence[ComposedCell], options: LauncherOptions
) -> tuple[SweepFolder, list[CellRow]]:
    """Run a grid, or what is left of it, and wait for it unless it is to be detached.

    Returns:
        Where the sweep is kept, and how each cell ended (detached: how it stands); see `failure`.

    Raises:
        UserError: a cell cannot work (unless ``skip_invalid``), or the scheduler refuses an option.
        RunError: the same sweep is being submitted by another process.
    """
    if isinstance(options, SlurmOptions):
        check_options(options)
    composed, names, since = told_apart(composed), cell_names(composed), time.time()
    with interruptible():
        checked = _check(composed, names, options)
        folder = SweepFolder(_shared(checked).results_dir, sweep_id(composed))
        with _one_launcher(folder), _ended_as_asked(folder, options):
            rows = _submit_and_wait(Sweep(folder, names, _as_of_now(checked, folder), options, since))
    return folder, rows if options.detach else close_sweep(folder, rows)


def _as_of_now(checked: Sequence[CheckedCell], folder: SweepFolder) -> list[CheckedCell]:
    """The cells, some of which another command may have finished while this one waited for its turn."""
    return [
        replace(cell, is_done=True)
        if cell.key and not _is_forced(cell) and has_all(folder.results_dir / cell.key)
        else cell
        for cell in checked
    ]


def _is_forced(cell: CheckedCell) -> bool:
    return cell.composed.spec is not None and cell.composed.spec.config.force


def _submit_and_wait(sweep: Sweep) -> list[CellRow]:
    folder, options = sweep.folder, sweep.options
    scheduler, requests = _scheduler(options), _missing(sweep)
    if isinstance(options, SlurmOptions):
        check_names(
            folder.path, [request.name for requests_of_pack in requests for request in requests_of_pack]
        )
    _write(sweep)
    open_sweep(folder, _shared(sweep.checked).tracking)
    if requests:
        count = len(scheduler.submit(folder, requests, PackJob).jobs)
        say(f"sweep {folder.id}: {count} job{'s' * (count != 1)} submitted; {folder.path}")
    return observe(folder) if options.detach else wait(folder, options, scheduler)


def sweep_id(composed: Sequence[ComposedCell]) -> str:
    """Name of a grid's sweep: the preset's, if any, and a hash of what its cells were composed from.

    The same command gives the same id, whatever its action: it goes on with the same sweep, or shows it. The
    order of the cells counts, for they are known by their numbers; the secrets in it do not.
    """
    overrides = [
        sorted(
            redact_override(override)
            for override in cell.overrides
            if not override.startswith(_NO_PART_OF_A_SWEEP)
        )
        for cell in composed
    ]
    digest = hashlib.sha256(json.dumps(overrides).encode()).hexdigest()[:_ID_LENGTH]
    preset = next((cell.spec.config.experiment for cell in composed if cell.spec), None)
    return f"{re.sub(r'[^A-Za-z0-9_.]', '_', str(preset))}-{digest}" if preset else digest


def failure(rows: Sequence[CellRow], folder: SweepFolder) -> ProbegridError | None:
    """One sentence on a sweep in which not every cell is done, or in MLflow; None where nothing is missing.

    A `UserError` if every reason is one, so that the exit status is 2.
    """
    missing = [row for row in rows if row.stage is not Stage.done]
    unsent = sum(bool(row.unsent) for row in rows)
    if not missing and unsent:
        return TrackingError(
            f"all {len(rows)} cells are done, but MLflow does not have {unsent} of them; their results are in "
            f"{folder.results_dir}, and `probegrid action=sync` sends them."
        )
    if not missing:
        return None
    ended = ended_by(folder, rows)
    if unsent:
        ended = "; ".join(
            filter(None, (ended, f"MLflow does not have {unsent} that are (`action=sync` sends them)"))
        )
    sentence = (
        f"{len(missing)} of {len(rows)} cells are not done ({counts(rows)}); {ended and f'{ended}; '}"
        f"the reasons are in the table and in {folder.path}, and the same command tries them again."
    )
    return UserError(sentence) if all(row.is_user_error for row in missing) else RunError(sentence)


def _check(
    composed: Sequence[ComposedCell], names: Sequence[str], options: LauncherOptions
) -> list[CheckedCell]:
    checker, checked = Checker(options), []
    with Progress() as progress:
        progress.start("checking cells", total=len(composed))
        for cell in composed:
            checked.append(checker.check(cell))
            progress.advance(1)
    refused = refusals(names, checked)
    if refused:
        say(redact("\n".join(refused)))
    if refused and (not options.skip_invalid or len(refused) == len(checked)):
        raise ConfigError(
            f"{len(refused)} of {len(checked)} cells cannot work, for the reasons above; nothing is submitted"
            + (
                " (hydra.launcher.skip_invalid=true submits the others)."
                if len(refused) < len(checked)
                else "."
            )
        )
    return checked


def _shared(checked: Sequence[CheckedCell]) -> Config:
    """The config of the first cell, for what all must share.

    Raises:
        ConfigError: cells differ in where they are recorded or sent.
    """
    configs = [cell.composed.spec.config for cell in checked if cell.composed.spec is not None]
    for name in ("results_dir", "store_dir", "tracking"):
        if any(getattr(config, name) != getattr(configs[0], name) for config in configs):
            raise ConfigError(f"{name} differs between the cells of one sweep; give it one value.")
    return configs[0]


def _missing(sweep: Sweep) -> list[list[JobRequest]]:
    """The jobs for every cell that is not done and in no job that is queued or running."""
    live: set[int] = set()
    if sweep.folder.manifest_file.exists():
        rows = observe(sweep.folder)
        _refuse_anothers(sweep.folder, rows)
        live = {row.cell for row in rows if row.stage in (Stage.running, Stage.queued)}
        live -= take_back_changed(sweep.folder, sweep.checked, sweep.options)
    cells = [
        number
        for number, cell in enumerate(sweep.checked)
        if cell.error is None and not cell.is_done and number not in live
    ]
    done = sum(cell.is_done for cell in sweep.checked)
    say(f"{len(sweep.checked)} cells: {done} done already, {len(live)} on their way, {len(cells)} to run")
    return pack(sweep.checked, cells, sweep.options.cells_per_job, sweep.options.jobs_per_cell)


def _refuse_anothers(folder: SweepFolder, rows: Sequence[CellRow]) -> None:
    """Refuse to write a sweep anew while another user's jobs read it: they may not read what this one writes.

    Raises:
        RunError: such jobs are on their way, as far as their scheduler says.
    """
    latest = latest_jobs(folder.read_submissions())
    users = {latest[row.cell][0].user for row in rows if row.is_live and latest[row.cell][0].is_anothers}
    if users:
        raise RunError(
            f"jobs of {', '.join(sorted(users))} are at work on this sweep ({folder.id}), as `probegrid action=status` "
            "shows; run it again once they have ended, or give a results_dir of your own, which shares the store."
        )


def _write(sweep: Sweep) -> None:
    cells = tuple(
        ManifestCell(
            name,
            cell.composed.overrides,
            cell.key,
            was_done=cell.is_done,
            invalid=None if cell.error is None else str(cell.error),
        )
        for name, cell in zip(sweep.names, sweep.checked, strict=True)
    )
    sweep.folder.write_cells([None if cell.error else cell.composed.spec for cell in sweep.checked])
    sweep.folder.write_text(sweep.folder.diff_file, uncommitted_changes() or "")
    sweep.folder.write_manifest(
        Manifest(
            id=sweep.folder.id,
            cells=cells,
            argv=tuple(own_argv()),
            cwd=str(Path.cwd()),
            host=socket.gethostname(),
            git_commit=git_commit(),
            versions=versions(),
            launcher=plain(sweep.options),
            since=sweep.since,
        )
    )


def _scheduler(options: LauncherOptions) -> Scheduler:
    if isinstance(options, SlurmOptions):
        return SlurmScheduler(options)
    return LocalScheduler(options if isinstance(options, LocalOptions) else None)


@contextmanager
def _one_launcher(folder: SweepFolder) -> Iterator[None]:
    """Keep two commands from submitting the same sweep at once."""
    with ExitStack() as held:
        try:
            with disk_errors(folder.path):
                folder.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(folder.path / ".lock", timeout_s=0))
        except Timeout as error:
            raise RunError(
                f"another command is at work on this sweep ({folder.id}); `probegrid action=status` shows it."
            ) from error
        yield


@contextmanager
def _ended_as_asked(folder: SweepFolder, options: LauncherOptions) -> Iterator[None]:
    """On Ctrl-C, SIGTERM and a closed terminal end what was submitted or leave it, as ``on_interrupt`` says."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not folder.manifest_file.exists():
            raise
        if options.on_interrupt is OnInterrupt.cancel:
            why = name_of(interrupt)
            quietly(lambda: say(f"{why}: what is on its way is cancelled ..."))
            rows = stop_sweep(folder, why)
            quietly(lambda: print_table(folder, rows))
        else:
            commands = "`probegrid action=status` shows it, `action=cancel` ends it"
            quietly(lambda: say(f"sweep {folder.id} goes on; {commands}."))
        raise
