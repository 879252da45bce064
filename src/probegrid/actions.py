"""What each value of ``action`` does, with one composed cell or with a whole grid.

Knows the entry points of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError, PlanError, RunError, StoreError, TrackingError, UserError
from probegrid.models.torchless import import_without_torch
from probegrid.planning.plan import Plan
from probegrid.schema import Action, CellSpec, Config, TrackingBackend
from probegrid.sweep.grid import ComposedCell, cell_names
from probegrid.sweep.options import LauncherOptions, SlurmOptions
from probegrid.tracking.sweep_folder import SweepFolder

if TYPE_CHECKING:
    from probegrid.cell.lookup import Lookup
    from probegrid.sweep.check import Checker


def act(spec: CellSpec) -> None:
    """Do what ``config.action`` says."""
    _ACTIONS[spec.config.action](spec)


def act_alone(spec: CellSpec, overrides: tuple[str, ...], options: LauncherOptions | None) -> None:
    """Do what ``action`` says in a command without ``-m``; as a grid of one cell where it asks for a launcher.

    Args:
        spec: the cell.
        overrides: what it was composed from.
        options: those of the launcher; None: the cell runs in this process.
    """
    composed = [ComposedCell(overrides, spec)]
    if options is None or (spec.config.action in _OF_SWEEPS and not _was_submitted(composed, spec)):
        act(spec)
    else:
        act_on_grid(composed, options)


def _run(spec: CellSpec) -> None:
    from probegrid.cell.run import run_cell

    result = run_cell(spec)
    if result.unsent is not None:
        raise TrackingError(
            f"{spec.name} is done and its result in {result.folder}, but MLflow does not have it; "
            "`probegrid action=sync` sends it."
        )


def _plan(spec: CellSpec) -> None:
    from probegrid.cell.lookup import Lookup
    from probegrid.cell.plan import plan_spec
    from probegrid.planning.describe import describe

    import_without_torch()
    plan, notes = plan_spec(spec, Lookup(fetch=False))
    lines = [f"{spec.choices.name} on {spec.choices.device_map}", *notes]
    print("\n".join([*lines, "no model is read" if plan is None else describe(plan)]))


def _sync(spec: CellSpec) -> None:
    config = spec.config
    if config.tracking.backend is TrackingBackend.none:
        raise ConfigError("action=sync has nowhere to send to under tracking=none; use tracking=mlflow.")
    from probegrid.sweep.close import sweep_run
    from probegrid.tracking.sweep_folder import list_sweeps
    from probegrid.tracking.sync import sync

    results_dir = _results_of(config)
    sweeps = {folder.id: partial(sweep_run, folder) for folder in list_sweeps(results_dir)}
    report = sync(results_dir, config.tracking, sweeps)
    print(f"sent {len(report.sent)}, there already {len(report.already)}, failed {len(report.failed)}")
    for key, reason in report.failed.items():
        print(f"  {key}: {reason}")
    if report.failed:
        raise RunError(
            f"{len(report.failed)} of the recorded cells and sweeps could not be sent, for the reasons above; mend "
            "them and run the same command again."
        )


def _score(spec: CellSpec) -> None:
    from probegrid.cell.score import score_cell

    score_cell(spec)


def _report(spec: CellSpec) -> None:
    from probegrid.report.report import show_report

    show_report(Path(spec.config.results_dir), spec.config.report)


def _verify(spec: CellSpec) -> None:
    from probegrid.readings.verify import verify_store
    from probegrid.tracking.integrity import verify

    store_dir = spec.config.store_dir
    results_dir = Path(spec.config.results_dir) if Path(store_dir).is_dir() else _results_of(spec.config)
    n_cells, in_results = verify(results_dir)
    n_files, in_store = verify_store(Path(store_dir))
    for line in (*in_results, *in_store):
        print(line)
    count = len(in_results) + len(in_store)
    cells = f"{n_cells} cells in {results_dir}" if results_dir.is_dir() else f"{results_dir} does not exist"
    print(f"{cells}, {n_files} files in {store_dir}: {count or 'none'} damaged or not readable")
    if count:
        raise StoreError(
            "see above: what is damaged is set aside, and the commands that made it make it again; what may not be "
            "read or moved is left as it is."
        )


def _status(spec: CellSpec) -> None:
    from probegrid.sweep.status import show_sweeps

    show_sweeps(Path(spec.config.results_dir), every=spec.config.status.every)


def _cancel(spec: CellSpec) -> None:
    from probegrid.sweep.status import cancel_sweep

    cancel_sweep(_results_of(spec.config))


def _results_of(config: Config) -> Path:
    """The folder of results, which must be there: that nothing is wrong with none is no news of a mistyped one.

    Raises:
        ConfigError: it is not there.
    """
    folder = Path(config.results_dir)
    if not folder.is_dir():
        raise ConfigError(
            f"results_dir={config.results_dir} does not exist; name the folder that holds the results, which the first "
            "`probegrid` or `probegrid -m ...` makes."
        )
    return folder


_ACTIONS: dict[Action, Callable[[CellSpec], None]] = {
    Action.run: _run,
    Action.plan: _plan,
    Action.score: _score,
    Action.report: _report,
    Action.sync: _sync,
    Action.verify: _verify,
    Action.status: _status,
    Action.cancel: _cancel,
}


_OF_ONE_CELL = (Action.score,)
_TAKEN_ONCE = {
    Action.report: ("results_dir", "report"),
    Action.sync: ("results_dir", "tracking"),
    Action.status: ("results_dir", "status"),
    Action.cancel: ("results_dir",),
    Action.verify: ("results_dir", "store_dir"),
}
"""What is done once for a whole grid, and the keys that it looks at."""
_OF_SWEEPS = tuple(_TAKEN_ONCE)


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
    _refuse_several(action, [spec.config for spec in specs])
    if action is Action.plan:
        _plan_grid(composed, options)
    elif action is Action.report:
        _report_grid(composed, specs[0])
    elif action in (Action.status, Action.cancel):
        _look_or_cancel(action, composed, specs[0].config)
    elif action in _OF_ONE_CELL and isinstance(options, SlurmOptions):
        raise ConfigError(f"action={action.name} runs where it is typed; leave hydra/launcher out.")
    else:
        for spec in specs if action in _OF_ONE_CELL else specs[:1]:
            act(spec)


def _refuse_several(action: Action, configs: Sequence[Config]) -> None:
    """Refuse several values of what an action looks at that is done once: all but the first would be passed over."""
    for key in _TAKEN_ONCE.get(action, ()):
        values = [getattr(config, key) for config in configs]
        if all(value == values[0] for value in values):
            continue
        parts = [part.name for part in fields(values[0])] if is_dataclass(values[0]) else []
        name = next(
            (f"{key}.{part}" for part in parts if len({str(getattr(value, part)) for value in values}) > 1),
            key,
        )
        listed = f", or where it filters a list: '{name}=[a,b]'" if action is Action.report else ""
        raise ConfigError(
            f"{name} differs between the cells of one grid, and action={action.name} is done once for all of them; "
            f"give it one value{listed}."
        )


def _run_grid(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from probegrid.sweep.launch import failure, run_sweep
    from probegrid.sweep.table import print_table

    import_without_torch()
    folder, rows = run_sweep(composed, options)
    print_table(folder, rows)
    if not options.detach and (error := failure(rows, folder)) is not None:
        raise error


def _plan_grid(composed: Sequence[ComposedCell], options: LauncherOptions) -> None:
    from rich.console import Console

    from probegrid.cell.lookup import Lookup
    from probegrid.planning.describe import grid_table
    from probegrid.sweep.check import Checker
    from probegrid.sweep.packs import held_in_memory

    import_without_torch()
    lookup = Lookup(fetch=False)
    checker = Checker(options, lookup)
    named = [
        (name, cell.spec) for name, cell in zip(cell_names(composed), composed, strict=True) if cell.spec
    ]
    rows = [(name, _planned(checker, lookup, spec)) for name, spec in named]
    packs = [held_in_memory(spec.config) for _, spec in named]
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    console.print(grid_table(rows, packs))
    if all(isinstance(outcome, UserError) for _, outcome in rows):
        raise PlanError("no cell of this grid can work, for the reasons below the table.")


def _planned(checker: Checker, lookup: Lookup, spec: CellSpec) -> Plan | UserError | None:
    from probegrid.cell.plan import plan_spec

    try:
        return plan_spec(spec, lookup, device_map=checker.device_map(spec.config.device_map))[0]
    except UserError as error:
        return error


def _report_grid(composed: Sequence[ComposedCell], spec: CellSpec) -> None:
    """Report on the grid's own sweep; on everything that is recorded, where it never ran."""
    from probegrid.sweep.launch import sweep_id

    config = spec.config
    if config.report.sweep is None and _was_submitted(composed, spec):
        config = replace(config, report=replace(config.report, sweep=sweep_id(composed)))
    act(replace(spec, config=config))


def _was_submitted(composed: Sequence[ComposedCell], spec: CellSpec) -> bool:
    """Whether the grid has a sweep of its own."""
    from probegrid.sweep.launch import sweep_id

    return SweepFolder(spec.config.results_dir, sweep_id(composed)).manifest_file.exists()


def _look_or_cancel(action: Action, composed: Sequence[ComposedCell], config: Config) -> None:
    from probegrid.sweep.launch import sweep_id
    from probegrid.sweep.status import cancel_sweep, show_sweeps

    results_dir, sweep = Path(config.results_dir), sweep_id(composed)
    if action is Action.status:
        show_sweeps(results_dir, sweep, every=config.status.every)
    else:
        cancel_sweep(results_dir, sweep)
