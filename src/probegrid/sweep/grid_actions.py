"""What each value of ``action`` does with a whole grid (``-m``, or a preset that is one)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.actions import act
from probegrid.composition import Choices
from probegrid.errors import ConfigError, PlanError
from probegrid.models.plan import Plan
from probegrid.schema import Action, Config
from probegrid.sweep.compose import ComposedCell, cell_names
from probegrid.sweep.folder import SweepFolder
from probegrid.sweep.options import LauncherOptions

if TYPE_CHECKING:
    from probegrid.sweep.check import Checker

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
        _run(composed, options)
        return
    if error := next((cell.error for cell in composed if cell.error), None):
        raise error
    if action is Action.plan:
        _plan(composed, options)
    elif action is Action.report:
        _report(composed, *cells[0])
    elif action in (Action.status, Action.cancel):
        _look_or_cancel(action, composed, Path(cells[0][0].results_dir))
    else:
        for config, choices in cells if action in _OF_ONE_CELL else cells[:1]:
            act(config, choices)


def _run(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from probegrid.sweep.launch import failure, run_sweep
    from probegrid.sweep.table import print_table

    folder, rows = run_sweep(composed, options)
    print_table(rows)
    if not options.detach and (error := failure(rows, folder)) is not None:
        raise error


def _plan(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from rich.console import Console

    from probegrid.models.plan_report import grid_table
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


def _report(composed: Sequence[ComposedCell], config: Config, choices: Choices) -> None:
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
