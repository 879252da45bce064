"""The parent run of a sweep in MLflow: its files and its state, sent again only where they changed.

Knows a sweep's id, its files and how it stands. The run's last tag names what was sent, so that whoever sends the
same again (the launcher, the last job, ``action=sync``) changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_content import NOTE_TAG
from probegrid.tracking.mlflow_session import open_experiment
from probegrid.tracking.mlflow_sink import COMPLETE_TAG, Delivery, sweep_run
from probegrid.tracking.mlflow_tables import SWEEP_TABLES, TABLES_TAG, csv_table, tables_tag


@dataclass(frozen=True)
class SweepRun:
    """What the parent run of a sweep is to hold."""

    results_dir: Path
    """Folder of the recorded cells."""
    sweep: str
    """Id of the sweep."""
    root: Path
    """Folder that the artifacts' paths are relative to."""
    files: tuple[Path, ...]
    """Become artifacts, replacing those of the same path; empty ones are left out."""
    note: str
    """Its description, in Markdown."""
    is_done: bool
    """The run's state: ``FINISHED`` or ``FAILED``."""

    def digest(self) -> str:
        """SHA-256 of everything that is sent."""
        digest = hashlib.sha256(f"{self.is_done}\0{self.note}".encode())
        for file in self.files:
            digest.update(f"\0{file.relative_to(self.root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()


def deliver_sweep(run: SweepRun, tracking: TrackingConfig) -> Delivery:
    """Bring a sweep's parent run, made if it is not there, up to what is on disk.

    Raises:
        ServerUnreachable: nothing answers at the tracking URI.
        TrackingError: MLflow refuses.
    """
    run_id, digest = sweep_run(run.results_dir, run.sweep, tracking), run.digest()
    with open_experiment(tracking) as experiment:
        client = experiment.client
        if client.get_run(run_id).data.tags.get(COMPLETE_TAG) == digest:
            return Delivery(run_id, is_new=False)
        for file in run.files:
            if file.stat().st_size:
                parent = file.parent.relative_to(run.root).as_posix()
                client.log_artifact(run_id, str(file), None if parent == "." else parent)
        shown = {
            f"{file.stem}.json": csv_table(file)
            for file in run.files
            if file.stem in SWEEP_TABLES and file.suffix == ".csv"
        }
        for name, table in shown.items():
            if table is not None:
                client.log_text(run_id, table, name)
        client.set_tag(run_id, TABLES_TAG, tables_tag([name for name, table in shown.items() if table]))
        client.set_tag(run_id, NOTE_TAG, run.note)
        client.set_terminated(run_id, "FINISHED" if run.is_done else "FAILED")
        client.set_tag(run_id, COMPLETE_TAG, digest)
    return Delivery(run_id, is_new=True)
