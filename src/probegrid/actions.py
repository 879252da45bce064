"""What each value of ``action`` does with a composed cell.

Knows the entry points of the parts; must not know how any of them works.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from probegrid.composition import Choices
from probegrid.errors import ConfigError, RunError
from probegrid.schema import Action, Config, TrackingBackend


def act(config: Config, choices: Choices) -> None:
    """Do what ``config.action`` says."""
    _ACTIONS[config.action](config, choices)


def _run(config: Config, choices: Choices) -> None:
    from probegrid.cell import run_cell

    run_cell(config, choices)


def _plan(config: Config, choices: Choices) -> None:
    from probegrid.models.plan_report import describe
    from probegrid.planning import plan_cell

    print(f"{choices.name} on {choices.device_map}\n{describe(plan_cell(config, choices))}")


def _sync(config: Config, choices: Choices) -> None:
    if config.tracking.backend is TrackingBackend.none:
        raise ConfigError("action=sync has nowhere to send to under tracking=none; use tracking=mlflow.")
    from probegrid.sweep.folder import list_sweeps
    from probegrid.sweep.report import sweep_run
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
    from probegrid.scoring import score_cell

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
