"""The parent run of a sweep in MLflow: its files and its state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_session import open_experiment
from probegrid.tracking.mlflow_sink import sweep_run


def log_sweep(
    results_dir: Path, sweep: str, tracking: TrackingConfig, files: Sequence[Path], *, is_done: bool
) -> str:
    """Log files to a sweep's parent run, made if it is not there, and return its id.

    Args:
        results_dir: folder of the recorded cells.
        sweep: id of the sweep.
        tracking: where to send it.
        files: become artifacts, replacing those of the same name; empty ones are left out.
        is_done: the run's state: ``FINISHED`` or ``FAILED``.

    Raises:
        ServerUnreachable: nothing answers at the tracking URI.
        TrackingError: MLflow refuses.
    """
    run_id = sweep_run(results_dir, sweep, tracking)
    with open_experiment(tracking) as experiment:
        for file in files:
            if file.stat().st_size:
                experiment.client.log_artifact(run_id, str(file))
        experiment.client.set_terminated(run_id, "FINISHED" if is_done else "FAILED")
    return run_id
