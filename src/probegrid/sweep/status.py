"""``action=status`` and ``action=cancel``: a sweep looked at, or ended, by a command that did not start it."""

from __future__ import annotations

import time
from pathlib import Path

from probegrid.errors import ConfigError, StoreError
from probegrid.sweep.rows import observe
from probegrid.sweep.status_page import STATUS_PAGE
from probegrid.sweep.stop import stop_sweep
from probegrid.sweep.table import LiveTable, counts, print_table
from probegrid.tracking.sweep_folder import SweepFolder, list_sweeps


def show_sweeps(results_dir: Path, sweep: str | None = None, *, every: float | None = None) -> None:
    """Print the table of one sweep, by default the last, and a line for each other; write its page.

    Args:
        results_dir: folder of the recorded cells.
        sweep: id of the sweep; None: the last.
        every: seconds after which to look again, until nothing is on its way; None: once.

    Raises:
        ConfigError: there is no such sweep.
    """
    chosen = _find(results_dir, sweep)
    if every is not None:
        _watch(chosen, every)
    for folder in list_sweeps(results_dir):
        if folder.id != chosen.id:
            print(f"sweep {folder.id}: {_counts(folder)}")
    manifest = chosen.read_manifest()
    print(f"sweep {chosen.id}: {' '.join(manifest.argv)}")
    print_table(chosen, observe(chosen))
    page = chosen.path / STATUS_PAGE
    if page.exists():  # else it is somebody else's sweep, and its folder may not be written
        print(f"as a page: {page}")


def _counts(folder: SweepFolder) -> str:
    """How many cells of a sweep are how, or why that cannot be told: a colleague's may be closed to others."""
    try:
        return counts(observe(folder))
    except StoreError as error:
        return str(error)


def _watch(folder: SweepFolder, every: float) -> None:
    """Show the sweep in place until nothing of it is on its way; Ctrl-C ends the looking, not the sweep."""
    with LiveTable(folder) as table:
        rows = observe(folder)
        while any(row.is_live for row in rows):
            table.show(rows)
            time.sleep(every)
            rows = observe(folder)


def cancel_sweep(results_dir: Path, sweep: str | None = None) -> None:
    """End what is left of one sweep, by default the only one that has something left.

    Raises:
        ConfigError: there is no such sweep, or several are running and none is named.
    """
    if sweep is None:
        live = [folder for folder in list_sweeps(results_dir) if _is_live(folder)]
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
    rows = stop_sweep(folder, "action=cancel")
    print(f"sweep {folder.id}: cancelled; its own command goes on with it.")
    print_table(folder, rows)


def _is_live(folder: SweepFolder) -> bool:
    """Whether anything of a sweep is on its way; what is wrong with one that cannot be read is said."""
    try:
        return any(row.is_live for row in observe(folder))
    except StoreError as error:
        print(f"sweep {folder.id}: {error}")
        return False


def _find(results_dir: Path, sweep: str | None) -> SweepFolder:
    found = [folder for folder in list_sweeps(results_dir) if sweep in (None, folder.id)]
    if not found:
        what = "this grid" if sweep else "any sweep"
        raise ConfigError(
            f"results_dir={results_dir} holds nothing of {what}; `probegrid -m ...` without action starts one."
        )
    return found[-1]
