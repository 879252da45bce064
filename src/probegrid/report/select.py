"""Which of the recorded cells a report is about.

Knows the filters of ``report`` and the manifests of sweeps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from probegrid.errors import ConfigError, StoreError, closest
from probegrid.report.cells import GROUPS, RecordedCell, load_cells
from probegrid.schema import ReportConfig
from probegrid.tracking.sweep_folder import SweepFolder, list_sweeps

_FILTERS = GROUPS


@dataclass(frozen=True)
class Selection:
    """The recorded cells that pass every filter, and all of them; in the order they were started."""

    cells: list[RecordedCell]
    recorded: list[RecordedCell]


def select_cells(
    results_dir: Path, report: ReportConfig, on_damage: Callable[[str], None] | None = None
) -> list[RecordedCell]:
    """The cells of `select`."""
    return select(results_dir, report, on_damage).cells


def select(
    results_dir: Path, report: ReportConfig, on_damage: Callable[[str], None] | None = None
) -> Selection:
    """The recorded cells, and which of them a report is about.

    Args:
        results_dir: folder of the recorded cells.
        report: the filters.
        on_damage: told of each cell that is damaged, whatever the filters are: nobody knows what it was; None: it is
            raised.

    Raises:
        ConfigError: nothing is recorded, a filter names what no cell has, or no cell passes all of them.
        StoreError: a cell is damaged and nobody wants to be told, or all are.
    """
    damage: list[str] = []
    recorded = load_cells(results_dir, on_damage=damage.append)
    if damage and (on_damage is None or not recorded):
        raise StoreError(damage[0])
    for sentence in damage:
        assert on_damage is not None
        on_damage(sentence)
    if not recorded:
        raise ConfigError(
            f"results_dir={results_dir} holds no recorded cell; `probegrid` or `probegrid -m ...` makes some."
        )
    cells = recorded
    if report.sweep is not None:
        cells = _of_sweeps(results_dir, cells, _names(report.sweep))
    for group in _FILTERS:
        wanted = getattr(report, group)
        if wanted is not None:
            cells = _chosen(cells, group, _names(wanted))
    return Selection(cells, recorded)


def sweep_cells(folder: SweepFolder, on_damage: Callable[[str], None]) -> list[RecordedCell]:
    """The recorded cells of one sweep, whichever sweep computed them; ``on_damage`` is told of the damaged ones."""
    return load_cells(folder.results_dir, _keys(folder), on_damage=on_damage)


def _keys(folder: SweepFolder) -> set[str]:
    return {cell.key for cell in folder.read_manifest().cells if cell.key is not None}


def _names(wanted: object) -> list[str]:
    return [str(name) for name in wanted] if isinstance(wanted, list) else [str(wanted)]


def _of_sweeps(results_dir: Path, cells: list[RecordedCell], wanted: Sequence[str]) -> list[RecordedCell]:
    folders = {folder.id: folder for folder in list_sweeps(results_dir)}
    keys: set[str] = set()
    for sweep in wanted:
        if sweep not in folders:
            raise ConfigError(
                f"report.sweep={sweep} is no sweep of {results_dir}; {closest(sweep, folders)}."
            )
        keys |= _keys(folders[sweep])
    found = [cell for cell in cells if cell.record.cell in keys]
    if not found:
        raise ConfigError(f"report.sweep={','.join(wanted)} has no recorded cell yet; wait, or run it again.")
    return found


def _chosen(cells: list[RecordedCell], group: str, wanted: Sequence[str]) -> list[RecordedCell]:
    known = sorted({cell.value(group) for cell in cells})
    for name in wanted:
        if name not in known:
            raise ConfigError(f"report.{group}={name} matches no recorded cell; {closest(name, known)}.")
    return [cell for cell in cells if cell.value(group) in wanted]
