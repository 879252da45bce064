"""A sweep's page, ``.sweeps/<id>/status.html``: how each cell is doing, for a browser that loads it again by itself.

Knows rows of a sweep. Whoever waits for the sweep writes it, and ``action=status`` does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from probegrid.errors import StoreError
from probegrid.report.embedding import asset, policy, render, verbatim
from probegrid.sweep.rows import CellRow, Stage
from probegrid.tracking.sweep_folder import SweepFolder

STATUS_PAGE = "status.html"
REFRESH_S = 10
"""Seconds after which a browser loads the page of a sweep that is on its way again."""
_WRITE_S = 5.0
_FIRST = (
    Stage.running,
    Stage.failed,
    Stage.lost,
    Stage.invalid,
    Stage.cancelled,
    Stage.queued,
    Stage.unknown,
)
"""What a person looks for first."""


class StatusPage:
    """The page of one sweep, written anew every few seconds at most."""

    def __init__(self, folder: SweepFolder) -> None:
        self.file = folder.path / STATUS_PAGE
        self._folder = folder
        self._written, self._was_live = 0.0, True

    def show(self, rows: Sequence[CellRow], found: Mapping[int, Sequence[str]]) -> None:
        """Write how the cells are doing now; a full disk costs the page and nothing else.

        Args:
            rows: every cell of the sweep.
            found: the numbers of those that are done, by the cell's number.
        """
        is_live = any(row.is_live for row in rows)
        if is_live and self._was_live and time.monotonic() - self._written < _WRITE_S:
            return
        self._written, self._was_live = time.monotonic(), is_live
        try:
            self._folder.write_text(self.file, status_page(self._folder, rows, found))
        except StoreError:
            return


def status_page(folder: SweepFolder, rows: Sequence[CellRow], found: Mapping[int, Sequence[str]]) -> str:
    """The page: the sweep's command, how many cells are in each state, and a row a cell.

    It loads itself again while a cell is on its way, and no more after that.
    """
    stages = Counter(row.stage for row in rows)
    ordered = sorted(rows, key=lambda row: _FIRST.index(row.stage) if row.stage in _FIRST else len(_FIRST))
    report = folder.report_dir / "index.html"
    return render(
        "status.html.j2",
        {
            "title": f"Sweep {folder.id}",
            "command": " ".join(folder.read_manifest().argv),
            "now": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
            "refresh_s": REFRESH_S if any(row.is_live for row in rows) else None,
            "stages": [(stage.value, stages[stage]) for stage in Stage if stages[stage]],
            "total": len(rows),
            "rows": [
                {
                    "name": row.name,
                    "stage": row.stage.value,
                    "job": row.job,
                    "node": row.node,
                    "said": [*([row.detail] if row.detail else []), *found.get(row.cell, ())],
                    "log": "" if row.traceback is None else str(Path(row.traceback)),
                }
                for row in ordered
            ],
            "report": report.relative_to(folder.path).as_posix() if report.exists() else None,
            "policy": policy(()),
            "style": verbatim(asset("assets/base.css") + asset("assets/status.css")),
        },
    )
