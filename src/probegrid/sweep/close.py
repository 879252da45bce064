"""What a sweep tells the world besides its cells: records of cells whose worker died, a summary, MLflow's parent."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError, StoreError, TrackingError
from probegrid.schema import CellSpec, ReportConfig, TrackingBackend, TrackingConfig, to_plain
from probegrid.sweep.rows import CellRow, Stage
from probegrid.sweep.table import say
from probegrid.tracking import record
from probegrid.tracking.integrity import is_done
from probegrid.tracking.provenance import provenance, versions
from probegrid.tracking.record import CellError, CellRecord, Status
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import Manifest

if TYPE_CHECKING:
    from probegrid.tracking.mlflow_sweep import SweepRun


def open_sweep(folder: SweepFolder, tracking: TrackingConfig) -> None:
    """Make the database, the experiment and the sweep's parent run, once, before many processes write to them."""
    _send(folder, tracking)


def close_sweep(folder: SweepFolder, rows: Sequence[CellRow]) -> list[CellRow]:
    """Record the cells that could not record themselves, write the summary, and bring MLflow up to date.

    A full disk is said and no more: whoever closes the sweep still has its table to show.

    Returns:
        The rows; those of cells that could not be sent when they ended, and now were, say no more of it.
    """
    manifest, configs = folder.read_manifest(), folder.read_cells()
    config = next((found.config for found in configs if found is not None), None)
    try:
        for row in rows:
            key, found = manifest.cells[row.cell].key, configs[row.cell]
            if key is not None and found is not None and _is_unrecorded(folder, row, key):
                _record_death(folder, row, key, found)
        folder.write_text(folder.summary_file, summary(folder, manifest, rows))
        if config is not None and config.tracking.backend is not TrackingBackend.none:
            _write_report(folder, config.report)
            if _send(folder, config.tracking):
                return _send_cells(folder, manifest, rows, config.tracking)
    except StoreError as error:
        say(str(error))
    return list(rows)


def _send_cells(
    folder: SweepFolder, manifest: Manifest, rows: Sequence[CellRow], tracking: TrackingConfig
) -> list[CellRow]:
    """Try again to send the cells that could not be sent when they ended; MLflow answers now."""
    from probegrid.tracking.mlflow_sink import send

    found = []
    for row in rows:
        if row.unsent:
            try:
                send(folder.results_dir / str(manifest.cells[row.cell].key), tracking)
            except (TrackingError, StoreError) as error:
                row = replace(row, unsent=str(error))
            else:
                row = replace(row, unsent="")
        found.append(row)
    return found


def sweep_run(folder: SweepFolder) -> SweepRun:
    """What MLflow's parent run of a sweep is to hold: what is on disk now."""
    from probegrid.tracking.mlflow_content import sweep_note
    from probegrid.tracking.mlflow_sweep import SweepRun

    is_closed = folder.summary_file.exists()
    return SweepRun(
        results_dir=folder.results_dir,
        sweep=folder.id,
        root=folder.path,
        files=tuple(folder.public_files()),
        note=sweep_note(folder.read_manifest().argv, _tables(folder)),
        is_done=not is_closed or _all_done(folder),
    )


def summary(folder: SweepFolder, manifest: Manifest, rows: Sequence[CellRow]) -> str:
    """The table as CSV: a line a cell, its choices, state and reason, and every metric."""
    lines: list[dict[str, str]] = []
    for row in rows:
        key = manifest.cells[row.cell].key
        line = {"cell": row.name, "key": key or "", "state": row.stage.value, "reason": row.detail}
        try:
            found = None if key is None else record.read(folder.results_dir, key)
        except StoreError as error:
            found, line["reason"] = None, str(error)
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
        return not is_done(folder.results_dir / key)
    return row.stage is Stage.failed and not (folder.results_dir / key).exists()


def _record_death(folder: SweepFolder, row: CellRow, key: str, spec: CellSpec) -> None:
    config, choices = spec.config, spec.choices
    text = row.traceback.read_text(errors="replace") if row.traceback and row.traceback.exists() else ""
    kind = "WorkerDied" if row.stage is Stage.lost else row.detail.partition(":")[0]
    failed = CellRecord(
        cell=key,
        name=spec.name,
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


def _write_report(folder: SweepFolder, config: ReportConfig) -> None:
    """Write the report of the sweep's cells, those that other sweeps had recorded among them."""
    from probegrid.report.report import make_report, write_report
    from probegrid.report.select import sweep_cells

    cells = sweep_cells(folder, on_damage=say)
    if not cells:
        return
    make = partial(
        make_report,
        cells,
        title=f"Sweep {folder.id}",
        seed=config.seed,
        resamples=config.resamples,
        price_per_gpu_hour=config.price_per_gpu_hour,
        folder=folder.report_dir,
    )
    try:
        report = make(compare=config.compare)
    except ConfigError as error:
        say(f"no comparisons in the report: {error}")
        report = make(compare=None)
    write_report(folder.report_dir, report)


def _tables(folder: SweepFolder) -> list[str]:
    """The tables of the sweep's report as Markdown."""
    files = (
        folder.report_dir / f"{name}.md"
        for name in ("table", "comparisons", "costs", "device_maps", "failed")
    )
    return [file.read_text() for file in files if file.exists()]


def _all_done(folder: SweepFolder) -> bool:
    keys = [cell.key for cell in folder.read_manifest().cells]
    return all(key is not None and is_done(folder.results_dir / key) for key in keys)


def _send(folder: SweepFolder, tracking: TrackingConfig) -> bool:
    """Bring the sweep's parent run up to date; without MLflow the sweep goes on, and ``action=sync`` does it."""
    if tracking.backend is TrackingBackend.none:
        return True
    from probegrid.tracking.mlflow_sweep import deliver_sweep

    try:
        deliver_sweep(sweep_run(folder), tracking)
    except TrackingError as error:
        say(
            f"not sent to MLflow: {error} Everything is recorded on disk; `probegrid action=sync` sends it later."
        )
        return False
    return True
