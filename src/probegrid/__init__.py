"""Run grids of language model x quantization x device map x dataset x probe; compare the numbers.

>>> import probegrid
>>> result = probegrid.run(["model=tiny", "dataset=facts"])  # doctest: +SKIP
>>> result.metrics["auroc"]  # doctest: +SKIP

Each function does what the command would with the same words, and leaves a Hydra application around it as it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probegrid.cell.result import Result
    from probegrid.planning.plan import Plan
    from probegrid.report.report import Report

    Folder = str | os.PathLike[str]

__version__ = "0.1.0"
__all__ = ["__version__", "load", "plan", "report", "run", "sweep"]


def run(overrides: Sequence[str] = (), *, config_dir: Folder | None = None) -> Result:
    """Run one cell, as ``probegrid <overrides>`` would.

    Where ``tracking`` is not typed, MLflow's run of it is a child of the run that is active here, if any.

    Args:
        overrides: what would be typed on the command line, ``["model=tiny", "dataset=facts"]``.
        config_dir: a folder of groups of your own.

    Returns:
        The metrics and tables of the cell, also when it was already done and nothing was computed.

    Raises:
        probegrid.errors.UserError: the overrides ask for something that cannot be, for a grid, or for another action.
        probegrid.errors.RunError: something outside the input went wrong.
    """
    from probegrid.cell.run import run_cell
    from probegrid.compose import compose_cell
    from probegrid.door.arguments import words_of
    from probegrid.schema import Action
    from probegrid.tracking.mlflow_around import experiment_around

    overrides = words_of(overrides)
    with experiment_around(overrides):
        spec = compose_cell(overrides, config_dir, refuse_grids=True)
    _only(spec.config.action, Action.run, "run")
    return run_cell(spec)


def plan(overrides: Sequence[str] = (), *, config_dir: Folder | None = None) -> Plan | None:
    """What a cell will need, as ``probegrid action=plan <overrides>`` would tell; nothing is loaded or fetched.

    Returns:
        None where no model is read.

    Raises:
        probegrid.errors.UserError: the cell cannot work, as far as can be seen.
    """
    from probegrid.cell.lookup import Lookup
    from probegrid.cell.plan import plan_spec
    from probegrid.compose import compose_cell
    from probegrid.door.arguments import words_of
    from probegrid.schema import Action

    spec = compose_cell(words_of(overrides), config_dir, refuse_grids=True)
    _only(spec.config.action, Action.plan, "plan", Action.run)
    return plan_spec(spec, Lookup(fetch=False))[0]


def sweep(overrides: Sequence[str] = (), *, config_dir: Folder | None = None) -> list[Result]:
    """Run a grid and wait for it, as ``probegrid -m <overrides>`` would; commas stand between the values of a key.

    Returns:
        The result of every cell, in the order of the grid.

    Raises:
        probegrid.errors.UserError: a cell cannot work, and nothing is submitted; or every failure was the user's.
        probegrid.errors.RunError: not every cell is done. Those that are stand, and the same call runs the others.
    """
    from probegrid.door.arguments import words_of
    from probegrid.errors import ConfigError
    from probegrid.schema import Action
    from probegrid.sweep.grid import compose_grid
    from probegrid.sweep.launch import failure, run_sweep
    from probegrid.tracking.mlflow_around import experiment_around

    overrides = words_of(overrides)
    with experiment_around(overrides):
        cells, options = compose_grid(overrides, config_dir)
    for cell in cells:
        if cell.spec is not None:
            _only(cell.spec.config.action, Action.run, "sweep")
    if options.detach:
        raise ConfigError(
            "probegrid.sweep waits for its cells; leave hydra.launcher.detach=true to the command."
        )
    folder, rows = run_sweep(cells, options)
    if (error := failure(rows, folder)) is not None:
        raise error
    manifest = folder.read_manifest()
    return [load(folder.results_dir / str(known.key)) for known in manifest.cells]


def load(key_or_folder: Folder, *, results_dir: Folder | None = None) -> Result:
    """A recorded cell that is done.

    Args:
        key_or_folder: its folder, or its key below ``results_dir``.
        results_dir: folder of the recorded cells; by default what ``PROBEGRID_RESULTS`` names, or ``results``.

    Raises:
        probegrid.errors.ConfigError: there is none, or it failed.
        probegrid.errors.StoreError: its record is damaged.
    """
    from probegrid.cell.result import recorded

    given, below = Path(key_or_folder), results_dir or os.environ.get("PROBEGRID_RESULTS") or "results"
    return recorded(given if given.is_dir() else Path(below).expanduser() / given)


def report(overrides: Sequence[str] = (), *, config_dir: Folder | None = None) -> Report:
    """Put recorded cells side by side, as ``probegrid action=report <overrides>`` would; nothing is printed.

    Returns:
        The tables, figures and comparisons, which ``report.folder`` holds too.

    Raises:
        probegrid.errors.UserError: nothing is recorded, or the filters leave nothing.
    """
    from probegrid.compose import compose_cell
    from probegrid.door.arguments import words_of
    from probegrid.report.report import report_on
    from probegrid.schema import Action

    config = compose_cell(words_of(overrides), config_dir).config
    _only(config.action, Action.report, "report", Action.run)
    return report_on(Path(config.results_dir), config.report)


def _only(action: object, meant: object, name: str, untyped: object = None) -> None:
    """Refuse an action that is another function's; one that was not typed is meant."""
    from probegrid.errors import ConfigError
    from probegrid.schema import Action

    if action not in (meant, untyped):
        assert isinstance(action, Action)
        other = action.name if action.name in __all__ else None
        mend = f"call probegrid.{other}" if other else f"use the command, probegrid action={action.name}"
        raise ConfigError(f"probegrid.{name} does not do action={action.name}; {mend}.")


class _Package(ModuleType):
    """Lets ``probegrid.sweep`` and ``probegrid.report`` be called although rooms have these names too.

    Whoever imports such a room makes it an attribute of its package, in place of the function: then the room is called.
    """

    def __setattr__(self, name: str, value: object) -> None:
        called = _CALLED.get(name)
        if called is not None and isinstance(value, ModuleType):
            value.__class__ = type("Room", (ModuleType,), {"__call__": staticmethod(called)})
        super().__setattr__(name, value)


_CALLED = {"report": report, "sweep": sweep}
sys.modules[__name__].__class__ = _Package
