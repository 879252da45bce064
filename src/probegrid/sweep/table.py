"""A sweep as a person reads it: a table that lives while it is waited for, and the last one."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from probegrid.sweep.rows import CellRow, Stage
from probegrid.sweep.stop import ended_by
from probegrid.tracking.sweep_folder import SweepFolder

_LOG_EVERY_S = 30.0
_FEWEST_ROWS = 5
_LOG_WIDTH = 200
_COLORS = {
    Stage.done: "green",
    Stage.failed: "red",
    Stage.invalid: "red",
    Stage.lost: "red",
    Stage.cancelled: "yellow",
    Stage.running: "cyan",
    Stage.queued: "dim",
}


def cell_table(rows: Sequence[CellRow], hidden: int = 0, note: str = "") -> Table:
    """A line a cell: its state, its progress or reason, the file of its traceback or log; the counts below.

    Args:
        rows: the cells to show.
        hidden: cells that are left out.
        note: what the caption says besides.
    """
    captions = [f"and {hidden} more cells" if hidden else "", _plain(note)]
    table = Table(caption="\n".join(filter(None, captions)) or None)
    has_tracebacks = any(row.traceback for row in rows)
    for column in ("cell", "state", "job", "", *(("traceback, log",) if has_tracebacks else ())):
        table.add_column(column, overflow="fold")
    for row in rows:
        color = _COLORS.get(row.stage, "default")
        traceback = (str(row.traceback or ""),) if has_tracebacks else ()
        table.add_row(
            row.name, f"[{color}]{row.stage}[/]", row.job, _plain(row.detail), *map(_plain, traceback)
        )
    return table


def counts(rows: Sequence[CellRow]) -> str:
    """How many cells are in each state: ``3 done, 1 running, 4 queued``."""
    found = Counter(row.stage for row in rows)
    before = sum(row.stage is Stage.done and not row.job for row in rows)
    text = ", ".join(f"{found[stage]} {stage}" for stage in Stage if found[stage])
    return f"{text} ({before} of them before)" if before else text


def print_table(folder: SweepFolder, rows: Sequence[CellRow]) -> None:
    """Print the whole table, with what ended the sweep in its caption, and the counts to stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_LOG_WIDTH)
    console.print(cell_table(rows, note=ended_by(folder, rows)))
    console.print(counts(rows), highlight=False)


class LiveTable:
    """Shows a sweep while it is waited for; a line now and then where there is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._last, self._logged = "", 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, rows: Sequence[CellRow]) -> None:
        """Show the cells that are on their way or went wrong, as many as there is room for."""
        if self._console.is_terminal:
            self._live.update(self._fitting(rows), refresh=True)
            return
        line, now = counts(rows), time.monotonic()
        if line != self._last or now - self._logged > _LOG_EVERY_S:
            self._last, self._logged = line, now
            running = next((f"; {row.name}: {row.detail}" for row in rows if row.stage is Stage.running), "")
            say(f"{line}{running}")

    def note(self, text: str) -> None:
        """Print a line that stays, above the table where there is one."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _fitting(self, rows: Sequence[CellRow]) -> Table:
        order = (Stage.running, Stage.failed, Stage.lost, Stage.cancelled, Stage.queued)
        first = sorted(rows, key=lambda row: order.index(row.stage) if row.stage in order else len(order))
        room = max(_FEWEST_ROWS, self._console.height - 8)
        table = cell_table(first[:room], max(0, len(rows) - room))
        table.title = counts(rows)
        return table


def say(text: str) -> None:
    """Print to stderr at once."""
    print(text, file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
