"""What each value of ``action`` does, with one composed cell or with a whole grid.

Knows the entry points of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError, PlanError, RunError
from probegrid.planning.plan import Plan
from probegrid.schema import Action, CellSpec, TrackingBackend
from probegrid.sweep.grid import ComposedCell, cell_names
from probegrid.sweep.options import LauncherOptions
from probegrid.tracking.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from probegrid.sweep.check import Checker


def act(spec: CellSpec) -> None:
    """Do what ``config.action`` says."""
    _ACTIONS[spec.config.action](spec)


def _run(spec: CellSpec) -> None:
    from probegrid.cell.run import run_cell

    run_cell(spec)


def _plan(spec: CellSpec) -> None:
    from probegrid.cell.plan import plan_cell
    from probegrid.planning.describe import describe

    print(f"{spec.choices.name} on {spec.choices.device_map}\n{describe(plan_cell(spec))}")


def _sync(spec: CellSpec) -> None:
    config = spec.config
    if config.tracking.backend is TrackingBackend.none:
        raise ConfigError("action=sync has nowhere to send to under tracking=none; use tracking=mlflow.")
    from probegrid.sweep.close import sweep_run
    from probegrid.tracking.sweep_folder import list_sweeps
    from probegrid.tracking.sync import sync

    results_dir = Path(config.results_dir)
    sweeps = {folder.id: partial(sweep_run, folder) for folder in list_sweeps(results_dir)}
    report = sync(results_dir, config.tracking, sweeps)
    print(f"sent {len(report.sent)}, there already {len(report.already)}, failed {len(report.failed)}")
    for key, reason in report.failed.items():
        print(f"  {key}: {reason}")
    if report.failed:
        raise RunError(
            f"{len(report.failed)} of the recorded cells and sweeps could not be sent; run the same command again."
        )


def _score(spec: CellSpec) -> None:
    from probegrid.cell.score import score_cell

    score_cell(spec)


def _report(spec: CellSpec) -> None:
    from probegrid.report.report import show_report

    show_report(Path(spec.config.results_dir), spec.config.report)


def _status(spec: CellSpec) -> None:
    from probegrid.sweep.status import show_sweeps

    show_sweeps(Path(spec.config.results_dir))


def _cancel(spec: CellSpec) -> None:
    from probegrid.sweep.status import cancel_sweep

    cancel_sweep(Path(spec.config.results_dir))


_ACTIONS: dict[Action, Callable[[CellSpec], None]] = {
    Action.run: _run,
    Action.plan: _plan,
    Action.score: _score,
    Action.report: _report,
    Action.sync: _sync,
    Action.status: _status,
    Action.cancel: _cancel,
}


_OF_ONE_CELL = (Action.score,)


def act_on_grid(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    """Do what ``action`` says with all cells: run the sweep, print one table, or act once for all.

    Raises:
        UserError: cells that cannot be composed, differing actions, or whatever is wrong with the cells.
        RunError: not every cell is done.
    """
    specs = [cell.spec for cell in composed if cell.spec]
    actions = {spec.config.action for spec in specs}
    if len(actions) > 1:
        raise ConfigError("action differs between the cells of one grid; give it one value.")
    action = next(iter(actions), Action.run)
    if action is Action.run:
        _run_grid(composed, options)
        return
    if error := next((cell.error for cell in composed if cell.error), None):
        raise error
    if action is Action.plan:
        _plan_grid(composed, options)
    elif action is Action.report:
        _report_grid(composed, specs[0])
    elif action in (Action.status, Action.cancel):
        _look_or_cancel(action, composed, Path(specs[0].config.results_dir))
    else:
        for spec in specs if action in _OF_ONE_CELL else specs[:1]:
            act(spec)


def _run_grid(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from probegrid.sweep.launch import failure, run_sweep
    from probegrid.sweep.table import print_table

    folder, rows = run_sweep(composed, options)
    print_table(folder, rows)
    if not options.detach and (error := failure(rows, folder)) is not None:
        raise error


def _plan_grid(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from rich.console import Console

    from probegrid.planning.describe import grid_table
    from probegrid.sweep.check import Checker

    checker = Checker(options)
    rows = [
        (name, _planned(checker, cell.spec))
        for name, cell in zip(cell_names(composed), composed, strict=True)
        if cell.spec
    ]
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(grid_table(rows))
    if all(isinstance(outcome, PlanError) for _, outcome in rows):
        raise PlanError("no cell of this grid can work on this hardware; the table has the reasons.")


def _planned(checker: Checker, spec: CellSpec) -> Plan | PlanError:
    try:
        return checker.plan(spec)
    except PlanError as error:
        return error


def _report_grid(composed: Sequence[ComposedCell], spec: CellSpec) -> None:
    """Report on the grid's own sweep; on everything that is recorded, where it never ran."""
    from probegrid.sweep.launch import sweep_id

    sweep, config = sweep_id(composed), spec.config
    if config.report.sweep is None and SweepFolder(config.results_dir, sweep).manifest_file.exists():
        config = replace(config, report=replace(config.report, sweep=sweep))
    act(replace(spec, config=config))


def _look_or_cancel(action: Action, composed: Sequence[ComposedCell], results_dir: Path) -> None:
    from probegrid.sweep.launch import sweep_id
    from probegrid.sweep.status import cancel_sweep, show_sweeps

    (show_sweeps if action is Action.status else cancel_sweep)(results_dir, sweep_id(composed))
