"""What a sweep tells the world besides its cells: records of cells whose worker died, a summary, MLflow's parent."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from probegrid.composition import to_plain
from probegrid.errors import TrackingError
from probegrid.schema import TrackingBackend, TrackingConfig
from probegrid.sweep.folder import Manifest, SweepFolder
from probegrid.sweep.rows import CellRow, Stage
from probegrid.sweep.table import say
from probegrid.tracking import record
from probegrid.tracking.provenance import provenance, versions
from probegrid.tracking.record import CellError, CellRecord, Status


def open_sweep(folder: SweepFolder, tracking: TrackingConfig) -> None:
    """Make the database, the experiment and the sweep's parent run, once, before many processes write to them."""
    _log(folder, tracking, [folder.manifest_file, folder.diff_file])


def close_sweep(folder: SweepFolder, rows: Sequence[CellRow]) -> None:
    """Record the cells that could not record themselves, write the summary, and put it into MLflow's parent run."""
    manifest, configs = folder.read_manifest(), folder.read_cells()
    tracking = next((found[0].tracking for found in configs if found is not None), None)
    for row in rows:
        key, found = manifest.cells[row.cell].key, configs[row.cell]
        if key is not None and found is not None and _is_unrecorded(folder, row, key):
            _record_death(folder, row, key)
    folder.write_text(folder.summary_file, summary(folder, manifest, rows))
    if tracking is not None:
        _log(folder, tracking, [folder.summary_file], is_done=all(row.stage is Stage.done for row in rows))


def summary(folder: SweepFolder, manifest: Manifest, rows: Sequence[CellRow]) -> str:
    """The table as CSV: a line a cell, its choices, state and reason, and every metric."""
    lines: list[dict[str, str]] = []
    for row in rows:
        key = manifest.cells[row.cell].key
        found = None if key is None else record.read(folder.results_dir, key)
        line = {"cell": row.name, "key": key or "", "state": row.stage.value, "reason": row.detail}
        if found is not None:
            line |= dict(found.choices)
        if found is not None and row.stage is Stage.done:
            line |= {"reason": ""} | {name: repr(value) for name, value in found.metrics.items()}
        lines.append(line)
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _is_unrecorded(folder: SweepFolder, row: CellRow, key: str) -> bool:
    """Whether a cell ended badly and its own record does not say so: its worker died, or failed to find the cell."""
    if row.stage is Stage.lost and row.died:
        return not record.is_done(folder.results_dir, key)
    return row.stage is Stage.failed and record.read(folder.results_dir, key) is None


def _record_death(folder: SweepFolder, row: CellRow, key: str) -> None:
    found = folder.read_cells()[row.cell]
    assert found is not None
    config, choices = found
    text = row.traceback.read_text() if row.traceback else ""
    kind = "WorkerDied" if row.stage is Stage.lost else row.detail.partition(":")[0]
    failed = CellRecord(
        cell=key,
        name=choices.name,
        status=Status.failed,
        choices=asdict(choices),
        provenance=provenance(datetime.now(UTC)),
        versions=versions(),
        error=CellError(kind, row.detail, text),
        sweep=folder.id,
    )
    written = record.write(folder.results_dir, failed, to_plain(config))
    if config.tracking.backend is TrackingBackend.none:
        return
    from probegrid.tracking.mlflow_sink import send

    try:
        send(written, config.tracking)
    except TrackingError as error:
        say(f"not sent to MLflow: {error}")


def _log(
    folder: SweepFolder, tracking: TrackingConfig, files: Sequence[Path], *, is_done: bool = True
) -> None:
    """Log files to the sweep's parent run; without MLflow the sweep goes on and is sent later, its cells each."""
    if tracking.backend is TrackingBackend.none:
        return
    from probegrid.tracking.mlflow_sweep import log_sweep

    try:
        log_sweep(folder.results_dir, folder.id, tracking, files, is_done=is_done)
    except TrackingError as error:
        say(
            f"not sent to MLflow: {error} The cells are recorded on disk; `probegrid action=sync` sends them later."
        )
