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
from probegrid.schema import Action, Choices, Config, TrackingBackend
from probegrid.sweep.grid import ComposedCell, cell_names
from probegrid.sweep.options import LauncherOptions
from probegrid.tracking.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from probegrid.sweep.check import Checker


def act(config: Config, choices: Choices) -> None:
    """Do what ``config.action`` says."""
    _ACTIONS[config.action](config, choices)


def _run(config: Config, choices: Choices) -> None:
    from probegrid.cell.run import run_cell

    run_cell(config, choices)


def _plan(config: Config, choices: Choices) -> None:
    from probegrid.cell.plan import plan_cell
    from probegrid.planning.describe import describe

    print(f"{choices.name} on {choices.device_map}\n{describe(plan_cell(config, choices))}")


def _sync(config: Config, choices: Choices) -> None:
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


def _score(config: Config, choices: Choices) -> None:
    from probegrid.cell.score import score_cell

    score_cell(config, choices)


def _report(config: Config, choices: Choices) -> None:
    from probegrid.report.report import show_report

    show_report(Path(config.results_dir), config.report)


def _status(config: Config, choices: Choices) -> None:
    from probegrid.sweep.status import show_sweeps

    show_sweeps(Path(config.results_dir))


def _cancel(config: Config, choices: Choices) -> None:
    from probegrid.sweep.status import cancel_sweep

    cancel_sweep(Path(config.results_dir))


_ACTIONS: dict[Action, Callable[[Config, Choices], None]] = {
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
    cells = [(cell.config, cell.choices) for cell in composed if cell.config and cell.choices]
    actions = {config.action for config, _ in cells}
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
        _report_grid(composed, *cells[0])
    elif action in (Action.status, Action.cancel):
        _look_or_cancel(action, composed, Path(cells[0][0].results_dir))
    else:
        for config, choices in cells if action in _OF_ONE_CELL else cells[:1]:
            act(config, choices)


def _run_grid(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from probegrid.sweep.launch import failure, run_sweep
    from probegrid.sweep.table import print_table

    folder, rows = run_sweep(composed, options)
    print_table(rows)
    if not options.detach and (error := failure(rows, folder)) is not None:
        raise error


def _plan_grid(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from rich.console import Console

    from probegrid.planning.describe import grid_table
    from probegrid.sweep.check import Checker

    checker = Checker(options)
    rows = [
        (name, _planned(checker, cell.config, cell.choices))
        for name, cell in zip(cell_names(composed), composed, strict=True)
        if cell.config and cell.choices
    ]
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(grid_table(rows))
    if all(isinstance(outcome, PlanError) for _, outcome in rows):
        raise PlanError("no cell of this grid can work on this hardware; the table has the reasons.")


def _planned(checker: Checker, config: Config, choices: Choices) -> Plan | PlanError:
    try:
        return checker.plan(config, choices)
    except PlanError as error:
        return error


def _report_grid(composed: Sequence[ComposedCell], config: Config, choices: Choices) -> None:
    """Report on the grid's own sweep; on everything that is recorded, where it never ran."""
    from probegrid.sweep.launch import sweep_id

    sweep = sweep_id(composed)
    if config.report.sweep is None and SweepFolder(config.results_dir, sweep).manifest_file.exists():
        config = replace(config, report=replace(config.report, sweep=sweep))
    act(config, choices)


def _look_or_cancel(action: Action, composed: Sequence[ComposedCell], results_dir: Path) -> None:
    from probegrid.sweep.launch import sweep_id
    from probegrid.sweep.status import cancel_sweep, show_sweeps

    (show_sweeps if action is Action.status else cancel_sweep)(results_dir, sweep_id(composed))
