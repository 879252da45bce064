"""The flow of a sweep: compose, check, pack, submit, wait, report.

Knows the order of the steps and what makes a sweep go on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from probegrid.disk import disk_errors
from probegrid.errors import ConfigError, ProbegridError, RunError, UserError
from probegrid.progress import Progress
from probegrid.schema import Config
from probegrid.sweep.check import CheckedCell, Checker, refusals
from probegrid.sweep.close import close_sweep, open_sweep
from probegrid.sweep.grid import ComposedCell, cell_names, told_apart
from probegrid.sweep.local import LocalScheduler
from probegrid.sweep.options import LauncherOptions, OnInterrupt, SlurmOptions
from probegrid.sweep.packs import pack
from probegrid.sweep.rows import CellRow, Stage, cancelled, observe, scheduler_of
from probegrid.sweep.scheduler import JobRequest, Scheduler
from probegrid.sweep.slurm import SlurmScheduler, check_options
from probegrid.sweep.table import counts, print_table, say
from probegrid.sweep.wait import wait
from probegrid.tracking.provenance import git_commit, own_argv, uncommitted_changes, versions
from probegrid.tracking.sweep_folder import Manifest, ManifestCell, SweepFolder

_ID_LENGTH = 10


@dataclass(frozen=True)
class Sweep:
    """The cells of a sweep, looked at, and where it is kept."""

    folder: SweepFolder
    names: list[str]
    checked: list[CheckedCell]
    options: LauncherOptions


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
    composed, names = told_apart(composed), cell_names(composed)
    checked = _check(composed, names, options)
    folder = SweepFolder(_shared(checked).results_dir, sweep_id(composed))
    sweep = Sweep(folder, names, checked, options)
    with _one_launcher(folder):
        requests = _missing(sweep)
        _write(sweep)
        open_sweep(folder, _shared(checked).tracking)
        if requests:
            scheduler = _scheduler(options)
            submission = scheduler.submit(folder, requests)
            say(f"sweep {folder.id}: {len(submission.jobs)} jobs submitted; {folder.path}")
        if options.detach:
            return folder, observe(folder)
        with _interrupts(folder, options):
            rows = wait(folder, options, _scheduler(options))
    close_sweep(folder, rows)
    return folder, rows


def sweep_id(composed: Sequence[ComposedCell]) -> str:
    """Name of a grid's sweep: the preset's, if any, and a hash of what its cells were composed from.

    The same command gives the same id, whatever its action: it goes on with the same sweep, or shows it. The
    order of the cells counts, for they are known by their numbers.
    """
    overrides = [
        sorted(o for o in cell.overrides if not o.startswith(("action=", "report."))) for cell in composed
    ]
    digest = hashlib.sha256(json.dumps(overrides).encode()).hexdigest()[:_ID_LENGTH]
    preset = next((cell.spec.config.experiment for cell in composed if cell.spec), None)
    return f"{re.sub(r'[^A-Za-z0-9_.]', '_', str(preset))}-{digest}" if preset else digest


def failure(rows: Sequence[CellRow], folder: SweepFolder) -> ProbegridError | None:
    """One sentence on a sweep in which not every cell is done; None for one that is.

    A `UserError` if every reason is one, so that the exit status is 2.
    """
    missing = [row for row in rows if row.stage is not Stage.done]
    if not missing:
        return None
    sentence = (
        f"{len(missing)} of {len(rows)} cells are not done ({counts(rows)}); "
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
        say("\n".join(refused))
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
        live = {row.cell for row in observe(sweep.folder) if row.stage in (Stage.running, Stage.queued)}
    cells = [
        number
        for number, cell in enumerate(sweep.checked)
        if cell.error is None and not cell.is_done and number not in live
    ]
    done = sum(cell.is_done for cell in sweep.checked)
    say(f"{len(sweep.checked)} cells: {done} done already, {len(live)} on their way, {len(cells)} to run")
    return pack(sweep.checked, cells, sweep.options.cells_per_job)


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
    launcher = OmegaConf.to_container(OmegaConf.structured(sweep.options), enum_to_str=True)
    assert isinstance(launcher, dict)
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
            launcher={str(name): value for name, value in launcher.items()},
        )
    )


def _scheduler(options: LauncherOptions) -> Scheduler:
    return SlurmScheduler(options) if isinstance(options, SlurmOptions) else LocalScheduler()


@contextmanager
def _one_launcher(folder: SweepFolder) -> Iterator[None]:
    """Keep two commands from submitting the same sweep at once."""
    with disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.path / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise RunError(
            f"another command is at work on this sweep ({folder.id}); `probegrid action=status` shows it."
        ) from error


@contextmanager
def _interrupts(folder: SweepFolder, options: LauncherOptions) -> Iterator[None]:
    """While waiting, Ctrl-C, SIGTERM and a closed terminal end the sweep or leave it, as asked."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        if options.on_interrupt is OnInterrupt.cancel:
            for submission in folder.read_submissions():
                scheduler_of(submission).cancel(folder, submission)
            print_table(folder, cancelled(observe(folder)))
        else:
            say(f"sweep {folder.id} goes on; `probegrid action=status` shows it, `action=cancel` ends it.")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
