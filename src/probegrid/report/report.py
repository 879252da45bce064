"""A report from recorded cells to files: tables, comparisons, figures, page.

Knows the order of the steps and the names of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.disk import remove_leftovers, write_folder
from probegrid.errors import ConfigError, StoreError
from probegrid.report.behind import examples_behind, pair_pages, pairs_behind
from probegrid.report.cell_tables import cells_table, failed_table, other_scores_table
from probegrid.report.cells import RecordedCell
from probegrid.report.charts import Chart
from probegrid.report.comparison_table import comparisons_table
from probegrid.report.comparisons import Comparison, compare_cells
from probegrid.report.cost_table import cell_costs_table, costs_table
from probegrid.report.costs import contrast_costs, is_compared_in_cost
from probegrid.report.drawing import draw
from probegrid.report.examples_table import examples_table
from probegrid.report.figures import make_figures
from probegrid.report.page import page
from probegrid.report.ranking import ranking_table, rankings
from probegrid.report.ranking_figure import compared_ranking_chart
from probegrid.report.remarks import no_details, not_drawn, over_their_seeds
from probegrid.report.rules_table import rules_table
from probegrid.report.score_table import compared_scores_table
from probegrid.report.select import select
from probegrid.report.tables import Table
from probegrid.schema import Family, ReportConfig

if TYPE_CHECKING:
    import pandas as pd

PAGE_FILE = "index.html"
MOST_DETAILED = 150
"""Cells whose scores are compared within each, and whose answers are judged by every rule: rows are for reading."""
_DEVICE_MAP = "device_map"
_ENDINGS = {".csv", ".md", ".tex", ".html"}
_FOLDERS = {"figures", "pairs"}


@dataclass(frozen=True)
class Report:
    """What recorded cells amount to.

    Attributes:
        title: one line.
        period: when the cells were started.
        table: every cell with the metrics that fit a terminal; None where no cell ended well.
        wide_table: the same with more metrics, for the page.
        cell_costs: what each cell took, for the page and the files; None where nothing was read.
        examples: each dataset's first examples as they were read, for the page; None where no cell has them.
        compared_scores: the scores of each cell against each other, likewise; None where no cell has several.
        rules: the answers of each cell under other rules of correctness, likewise; None where no cell has answers.
        others: comparisons, costs, other scores, failed cells; as far as there are any.
        charts: the figures as values, in order.
        behind: what stands behind the rows of its tables, as `behind` has it.
        pages: of compared cells side by side, by relative path.
        notes: what is not shown, and why.
        damaged: a sentence for each recorded cell that is left out because it is damaged or may not be read.
    """

    title: str
    period: str
    table: Table | None
    wide_table: Table | None
    cell_costs: Table | None
    compared_scores: Table | None
    rules: Table | None
    others: Sequence[Table]
    charts: Sequence[Chart]
    behind: Mapping[str, Mapping[str, Any]]
    pages: Mapping[str, bytes]
    notes: Sequence[str]
    damaged: Sequence[str] = ()
    examples: Table | None = None

    @property
    def tables(self) -> list[Table]:
        """All tables that a terminal shows."""
        return [*([self.table] if self.table else []), *self.others]

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """Every table's rows with their raw values by the table's name: ``frames["comparisons"]``.

        ``table``: the cells that ended well, every metric of each. ``comparisons`` and ``costs``: pairs, where
        something was compared. ``ranking``, ``cell_costs``, ``other_scores``, ``compared_scores``, ``rules``,
        ``failed``: where there are any.
        """
        return {table.name: table.frame() for table in self._filed}

    @property
    def _filed(self) -> list[Table]:
        """All tables that are files."""
        return [
            *self.tables,
            *(table for table in (self.cell_costs, self.compared_scores, self.rules) if table),
        ]

    @cached_property
    def images(self) -> dict[str, dict[str, bytes]]:
        """The charts by name and ending (``svg``, ``pdf``), drawn when they are first asked for: it takes longest."""
        return {chart.name: draw(chart) for chart in self.charts}

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Everything by relative path: three forms of each table, figures, pairs of cells, and ``index.html``."""
        files: dict[str, bytes] = {}
        for table in self._filed:
            files |= table.files()
        files |= {
            f"figures/{name}.{ending}": image
            for name, forms in self.images.items()
            for ending, image in forms.items()
        }
        of_page = (
            self.wide_table,
            *self.others,
            self.compared_scores,
            self.rules,
            self.cell_costs,
            self.examples,
        )
        shown = [table for table in of_page if table is not None]
        written = page(
            self.title,
            [self.period, *self.notes, *self.damaged],
            shown,
            self.charts,
            {name: forms["svg"] for name, forms in self.images.items()},
            self.behind,
        )
        return files | dict(self.pages) | {PAGE_FILE: written.encode()}


def make_report(
    cells: Sequence[RecordedCell],
    *,
    title: str,
    compare: str | None,
    seed: int,
    resamples: int,
    family: Sequence[RecordedCell] | None = None,
    price_per_gpu_hour: float | None = None,
    folder: Path | None = None,
) -> Report:
    """Put cells side by side; the same cells give the same files.

    Args:
        cells: done or failed, at least one.
        title: of the page.
        compare: group or key whose values are compared in pairs; None for no comparisons.
        seed: of the resampling behind the comparisons.
        resamples: flippings of signs drawn behind each p-value.
        family: cells whose comparisons are corrected for too; None: these alone.
        price_per_gpu_hour: in any currency; None: nothing is priced.
        folder: where the report is to be written, so that its page leads to those of the cells; None: to none.

    Raises:
        ConfigError: ``compare`` names no group or key, or one that does not vary.
    """
    done = [cell for cell in cells if cell.is_done]
    others = [failed_table([cell for cell in cells if not cell.is_done])]
    if done:
        others.insert(0, other_scores_table(done))
    made: Sequence[Comparison] = ()
    if compare is not None:
        recorded = None if family is None else [cell for cell in family if cell.is_done]
        found = compare_cells(done, compare, seed=seed, resamples=resamples, family=recorded)
        made, compared = found.made, comparisons_table(found)
        costs = costs_table(contrast_costs(done, compare)) if is_compared_in_cost(compare) else None
        others[:0] = [compared, costs]
    if compare != _DEVICE_MAP and len({cell.value(_DEVICE_MAP) for cell in done}) > 1:
        others.append(costs_table(contrast_costs(done, _DEVICE_MAP), name="device_maps"))
    is_detailed = len(done) <= MOST_DETAILED
    figures, pairs = make_figures(done), pairs_behind(made)
    if ranked := rankings(done, seed=seed, flips=resamples) if is_detailed else []:
        others.insert(0, ranking_table(ranked, done))
        figures.replace(compared_ranking_chart(ranked, done))
    return Report(
        title=title,
        period=_period(cells),
        table=cells_table(done) if done else None,
        wide_table=cells_table(done, is_wide=True) if done else None,
        cell_costs=cell_costs_table(done, price_per_gpu_hour=price_per_gpu_hour),
        compared_scores=compared_scores_table(done, seed=seed, flips=resamples) if is_detailed else None,
        rules=rules_table(done, seed=seed) if is_detailed else None,
        others=[table for table in others if table is not None],
        charts=figures.charts,
        behind={"examples": examples_behind(done, folder), "pairs": pairs},
        pages=pair_pages(made, pairs),
        notes=[
            *over_their_seeds(done),
            *([] if is_detailed else [no_details(len(done), MOST_DETAILED)]),
            *([not_drawn(len(done), figures.left_out)] if figures.left_out else []),
        ],
        examples=examples_table(done),
    )


def _period(cells: Sequence[RecordedCell]) -> str:
    first, *_, last = sorted(cell.record.provenance.started_at for cell in (*cells, *cells))
    return f"{len(cells)} cells, started {first[:16].replace('T', ' ')} to {last[:16].replace('T', ' ')} UTC"


def report_on(results_dir: Path | str, config: ReportConfig) -> Report:
    """Report on the cells that ``config`` selects: write the report's folder, print nothing.

    Args:
        results_dir: folder of the recorded cells.
        config: which cells, what to compare, and the folder to write.

    Returns:
        What was written; its tables as frames in `Report.frames`.

    Raises:
        ConfigError: a filter or ``report.compare`` matches nothing, or the folder holds what is no report's.
        StoreError: all that is recorded is damaged, or the folder cannot be written.
    """
    folder = Path(config.folder)
    _check_folder(folder)
    damaged: list[str] = []
    selection = select(Path(results_dir), config, damaged.append)
    report = make_report(
        selection.cells,
        title="probegrid report",
        compare=config.compare,
        seed=config.seed,
        resamples=config.resamples,
        family=selection.recorded if config.family is Family.all else None,
        price_per_gpu_hour=config.price_per_gpu_hour,
        folder=folder,
    )
    report = replace(report, damaged=damaged)
    write_report(folder, report)
    return report


def show_report(results_dir: Path, config: ReportConfig) -> None:
    """Do as `report_on`, and print the tables.

    Raises:
        StoreError: besides, where a cell is damaged, once the others were shown.
    """
    report = report_on(results_dir, config)
    _print(report)
    print(f"{config.folder}: {PAGE_FILE}, {len(report.frames)} tables, {len(report.charts)} figures")
    if report.damaged:
        raise StoreError(
            f"{len(report.damaged)} of the recorded cells are not in the report, for the reasons above; "
            "`probegrid action=verify` sets damaged ones aside."
        )


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
        if path.suffix not in _ENDINGS and path.name not in _FOLDERS
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
    for note in (*report.notes, *report.damaged):
        console.print(note, markup=False, highlight=False)
