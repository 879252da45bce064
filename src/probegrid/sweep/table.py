"""A sweep as a person reads it: a table that lives while it is waited for, and the last one with the cells' numbers."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from probegrid.errors import StoreError
from probegrid.report.summary import numbers
from probegrid.sweep.rows import CellRow, Stage
from probegrid.sweep.status_page import StatusPage
from probegrid.sweep.stop import ended_by
from probegrid.tracking import record
from probegrid.tracking.sweep_folder import SweepFolder

_LOG_EVERY_S = 30.0
_FEWEST_ROWS = 5
_LOG_WIDTH = 200
_WIDE = 160
"""Columns of a terminal from which a cell takes one line; below, each of its numbers has a line of its own."""
_COLORS = {
    Stage.done: "green",
    Stage.failed: "red",
    Stage.invalid: "red",
    Stage.lost: "red",
    Stage.cancelled: "yellow",
    Stage.running: "cyan",
    Stage.queued: "dim",
}

_PHONE = 76
"""Columns below which there is no room for columns at all: a cell is a few lines one below the other."""

Numbers = Mapping[int, Sequence[str]]
"""What done cells found, by the cell's number."""


def cell_table(
    rows: Sequence[CellRow], found: Numbers, *, is_wide: bool = True, hidden: int = 0, note: str = ""
) -> Table:
    """A row a cell: its state, its numbers, progress or reason, and the file of its traceback or log.

    Args:
        rows: the cells to show.
        found: the numbers of those that are done.
        is_wide: whether there is room for a column of jobs, and for numbers side by side.
        hidden: cells that are left out.
        note: what the caption says besides.
    """
    captions = [f"and {hidden} more cells" if hidden else "", escape(note)]
    table = Table(caption="\n".join(filter(None, captions)) or None)
    for column in ("cell", "state", *(("job",) if is_wide else ()), "numbers, progress, reason"):
        table.add_column(column, overflow="fold")
    for row in rows:
        said = [*([row.detail] if row.detail else []), *found.get(row.cell, ())]
        lines = [", ".join(said)] if is_wide else said
        lines += [] if row.traceback is None else [f"see {row.traceback}"]
        state, details = Text(row.stage, _COLORS.get(row.stage, "default")), Text("\n".join(lines))
        job = [Text(row.job)]
        if not is_wide:
            state, job = Text("\n").join([state, *job]) if row.job else state, []
        table.add_row(Text(row.name), state, *job, details)
    return table


def cell_list(rows: Sequence[CellRow], found: Numbers, *, hidden: int = 0, note: str = "") -> Table:
    """The same for a narrow terminal: state and name on a line, what there is to say below it.

    Args:
        rows, found, hidden, note: as `cell_table` takes them.
    """
    captions = [f"and {hidden} more cells" if hidden else "", escape(note)]
    table = Table(box=None, show_header=False, padding=0, caption="\n".join(filter(None, captions)) or None)
    table.add_column(overflow="fold")
    for row in rows:
        said = [
            *([row.detail] if row.detail else []),
            *found.get(row.cell, ()),
            *([] if row.traceback is None else [f"see {row.traceback}"]),
        ]
        head = Text.assemble((f"{row.stage} ", _COLORS.get(row.stage, "default")), row.name)
        table.add_row(Text("\n").join([head, *(Text(f"  {line}") for line in said)]))
    return table


def _fit(width: int, rows: Sequence[CellRow], found: Numbers, *, hidden: int = 0, note: str = "") -> Table:
    """The form that a terminal of so many columns has room for."""
    if width < _PHONE:
        return cell_list(rows, found, hidden=hidden, note=note)
    return cell_table(rows, found, is_wide=width >= _WIDE, hidden=hidden, note=note)


def counts(rows: Sequence[CellRow]) -> str:
    """How many cells are in each state: ``3 done, 1 running, 4 queued``."""
    found = Counter(row.stage for row in rows)
    before = sum(row.stage is Stage.done and not row.job for row in rows)
    text = ", ".join(f"{found[stage]} {stage}" for stage in Stage if found[stage])
    return f"{text} ({before} of them before)" if before else text


def print_table(folder: SweepFolder, rows: Sequence[CellRow]) -> None:
    """Print the whole table, numbers included, with what ended the sweep in its caption, and the counts to stdout.

    The sweep's page is brought up to the same.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=_LOG_WIDTH)
    note, found = ended_by(folder, rows), numbers_of(folder, rows)
    console.print(_fit(console.width, rows, found, note=note))
    console.print(counts(rows), highlight=False)
    StatusPage(folder).show(rows, found)


def numbers_of(folder: SweepFolder, rows: Sequence[CellRow]) -> dict[int, list[str]]:
    """What the records of the done cells among these say, by the cell's number."""
    done = [row.cell for row in rows if row.stage is Stage.done]
    cells = folder.read_manifest().cells if done else ()
    return {cell: _read_numbers(folder, cells[cell].key) for cell in done}


def _read_numbers(folder: SweepFolder, key: str | None) -> list[str]:
    """The numbers of a recorded cell, or why they cannot be read: a table is shown whatever became of a record."""
    try:
        found = None if key is None else record.read(folder.results_dir, key)
    except StoreError as error:
        return [str(error)]
    return ["its record is gone"] if found is None else numbers(found)


class LiveTable:
    """Shows a sweep while it is waited for; a line now and then where there is no terminal."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._last, self._logged = "", 0.0
        self._found: dict[int, list[str]] = {}
        self._page = StatusPage(folder)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, rows: Sequence[CellRow]) -> None:
        """Show the cells that are on their way or went wrong, as many as there is room for; log those newly done."""
        new = self._newly_done(rows)
        self._page.show(rows, self._found)
        if self._console.is_terminal:
            self._live.update(self._fitting(rows), refresh=True)
            return
        for row in new:
            say(f"{row.name}: {', '.join(self._found[row.cell])}")
        line, now = counts(rows), time.monotonic()
        if line != self._last or now - self._logged > _LOG_EVERY_S:
            self._last, self._logged = line, now
            running = next((f"; {row.name}: {row.detail}" for row in rows if row.stage is Stage.running), "")
            say(f"{line}{running}")

    def note(self, text: str) -> None:
        """Print a line that stays, above the table where there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _newly_done(self, rows: Sequence[CellRow]) -> list[CellRow]:
        """Cells that this sweep has finished since the last look; each record is read once."""
        new = [row for row in rows if row.stage is Stage.done and row.job and row.cell not in self._found]
        self._found |= numbers_of(self._folder, new)
        return new

    def _fitting(self, rows: Sequence[CellRow]) -> Table:
        order = (Stage.running, Stage.failed, Stage.lost, Stage.cancelled, Stage.queued)
        first = sorted(rows, key=lambda row: order.index(row.stage) if row.stage in order else len(order))
        room = max(_FEWEST_ROWS, self._console.height - 8)
        if self._console.width < _PHONE:
            room = max(_FEWEST_ROWS, room // 3)  # a cell takes about so many lines
            table = cell_list(first[:room], self._found, hidden=max(0, len(rows) - room))
        else:
            table = cell_table(first[:room], self._found, hidden=max(0, len(rows) - room))
        table.title = counts(rows)
        return table


def say(text: str) -> None:
    """Print to stderr at once."""
    print(text, file=sys.stderr, flush=True)
