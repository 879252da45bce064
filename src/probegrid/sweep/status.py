"""``action=status`` and ``action=cancel``: a sweep looked at, or ended, by a command that did not start it."""

from __future__ import annotations

from pathlib import Path

from probegrid.errors import ConfigError
from probegrid.sweep.rows import cancelled, observe, scheduler_of
from probegrid.sweep.table import counts, print_table
from probegrid.tracking.sweep_folder import SweepFolder, list_sweeps


def show_sweeps(results_dir: Path, sweep: str | None = None) -> None:
    """Print the table of one sweep, by default the last, and a line for each other.

    Raises:
        ConfigError: there is no such sweep.
    """
    chosen = _find(results_dir, sweep)
    for folder in list_sweeps(results_dir):
        if folder.id != chosen.id:
            print(f"sweep {folder.id}: {counts(observe(folder))}")
    manifest = chosen.read_manifest()
    print(f"sweep {chosen.id}: {' '.join(manifest.argv)}")
    print_table(chosen, observe(chosen))


def cancel_sweep(results_dir: Path, sweep: str | None = None) -> None:
    """End what is left of one sweep, by default the only one that has something left.

    Raises:
        ConfigError: there is no such sweep, or several are running and none is named.
    """
    if sweep is None:
        live = [folder for folder in list_sweeps(results_dir) if any(row.is_live for row in observe(folder))]
        if len(live) > 1:
            commands = "; ".join(" ".join(folder.read_manifest().argv) for folder in live)
            raise ConfigError(
                f"{len(live)} sweeps are running; repeat the command of the one to end with action=cancel: {commands}"
            )
        if not live:
            print("no sweep is running")
            return
        sweep = live[0].id
    folder = _find(results_dir, sweep)
    for submission in folder.read_submissions():
        scheduler_of(submission).cancel(folder, submission)
    print(f"sweep {folder.id}: cancelled; its own command goes on with it.")
    print_table(folder, cancelled(observe(folder)))


def _find(results_dir: Path, sweep: str | None) -> SweepFolder:
    found = [folder for folder in list_sweeps(results_dir) if sweep in (None, folder.id)]
    if not found:
        what = "this grid" if sweep else "any sweep"
        raise ConfigError(
            f"results_dir={results_dir} holds nothing of {what}; `probegrid -m ...` without action starts one."
        )
    return found[-1]
