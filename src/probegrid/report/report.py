"""A report from recorded cells to files: tables, comparisons, figures, page.

Knows the order of the steps and the names of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from probegrid.disk import remove_leftovers, write_folder
from probegrid.errors import ConfigError
from probegrid.report.cell_tables import (
    MAIN_METRICS,
    MORE_METRICS,
    cells_table,
    failed_table,
    other_scores_table,
)
from probegrid.report.cells import RecordedCell
from probegrid.report.comparison_table import comparisons_table
from probegrid.report.comparisons import compare_cells
from probegrid.report.figures import draw_figures
from probegrid.report.page import page
from probegrid.report.select import select_cells
from probegrid.report.tables import Table
from probegrid.schema import ReportConfig

PAGE_FILE = "index.html"
_ENDINGS = {".csv", ".md", ".tex", ".html"}


@dataclass(frozen=True)
class Report:
    """What recorded cells amount to.

    Attributes:
        title: one line.
        period: when the cells were started.
        table: every cell with the metrics that fit a terminal; None where no cell ended well.
        wide_table: the same with more metrics, for the page.
        others: comparisons, other scores, failed cells; as far as there are any.
        figures: PNG images by name.
    """

    title: str
    period: str
    table: Table | None
    wide_table: Table | None
    others: Sequence[Table]
    figures: Mapping[str, bytes]

    @property
    def tables(self) -> list[Table]:
        """All tables that a terminal shows."""
        return [*([self.table] if self.table else []), *self.others]

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Everything by relative path: three forms of each table, ``figures/*.png``, and ``index.html``."""
        files: dict[str, bytes] = {}
        for table in self.tables:
            files |= table.files()
        files |= {f"figures/{name}.png": image for name, image in self.figures.items()}
        shown = [*([self.wide_table] if self.wide_table else []), *self.others]
        return files | {PAGE_FILE: page(self.title, self.period, shown, self.figures).encode()}


def make_report(
    cells: Sequence[RecordedCell], *, title: str, compare: str | None, seed: int, resamples: int
) -> Report:
    """Put cells side by side; the same cells give the same files.

    Args:
        cells: done or failed, at least one.
        title: of the page.
        compare: group or key whose values are compared in pairs; None for no comparisons.
        seed: of the resampling behind the comparisons.
        resamples: bootstrap resamples behind each comparison.

    Raises:
        ConfigError: ``compare`` names no group or key, or one that does not vary.
    """
    done = [cell for cell in cells if cell.is_done]
    others = [failed_table([cell for cell in cells if not cell.is_done])]
    if done:
        others.insert(0, other_scores_table(done))
    if compare is not None:
        others.insert(0, comparisons_table(compare_cells(done, compare, seed=seed, resamples=resamples)))
    return Report(
        title=title,
        period=_period(cells),
        table=cells_table(done, MAIN_METRICS) if done else None,
        wide_table=cells_table(done, (*MAIN_METRICS, *MORE_METRICS)) if done else None,
        others=[table for table in others if table is not None],
        figures=draw_figures(done) if done else {},
    )


def _period(cells: Sequence[RecordedCell]) -> str:
    first, *_, last = sorted(cell.record.provenance.started_at for cell in (*cells, *cells))
    return f"{len(cells)} cells, started {first[:16].replace('T', ' ')} to {last[:16].replace('T', ' ')} UTC"


def show_report(results_dir: Path, config: ReportConfig) -> None:
    """Print the tables of the cells that ``config`` selects, and write the report's folder.

    Raises:
        ConfigError: a filter or ``report.compare`` matches nothing, or the folder holds what is no report's.
        StoreError: a record is damaged, or the folder cannot be written.
    """
    folder = Path(config.folder)
    _check_folder(folder)
    cells = select_cells(results_dir, config)
    report = make_report(
        cells, title="probegrid report", compare=config.compare, seed=config.seed, resamples=config.resamples
    )
    _print(report)
    write_report(folder, report)
    print(f"{folder}: {PAGE_FILE}, {len(report.tables)} tables, {len(report.figures)} figures")


def write_report(folder: Path, report: Report) -> None:
    """Write a report's folder whole or not at all, in place of an earlier one.

    Raises:
        StoreError: the disk is full or refuses to be written.
    """
    remove_leftovers(folder.parent)
    write_folder(folder, report.files)


def _check_folder(folder: Path) -> None:
    """Refuse to replace a folder with anything in it that no report has written."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"report.folder={folder} is a file; give the name of a folder.")
    strange = [
        path.name
        for path in (folder.iterdir() if folder.exists() else ())
        if path.suffix not in _ENDINGS and path.name != "figures"
    ]
    if strange or (folder.exists() and any(folder.iterdir()) and not (folder / PAGE_FILE).exists()):
        raise ConfigError(
            f"report.folder={folder} holds what is no report's ({', '.join(strange[:3]) or f'no {PAGE_FILE}'}) and "
            "would be replaced whole; give another folder."
        )


def _print(report: Report) -> None:
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=200)
    for table in report.tables:
        console.print(table.rich())
        for note in table.notes:
            console.print(note, markup=False, highlight=False)
