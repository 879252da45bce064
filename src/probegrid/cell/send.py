"""A recorded cell on its way to MLflow: said beforehand where it will not arrive, and afterwards where it did not.

Knows that the folder stands whatever becomes of MLflow.
"""

from __future__ import annotations

from pathlib import Path

from probegrid.errors import TrackingError
from probegrid.progress import Progress
from probegrid.schema import TrackingBackend, TrackingConfig
from probegrid.tracking.preflight import obstacle


def say_obstacle(tracking: TrackingConfig, progress: Progress) -> None:
    """Say before anything is computed that MLflow will hardly have the cell, if so."""
    sentence = obstacle(tracking)
    if sentence is not None:
        progress.say(
            f"{sentence} The cell runs all the same and is recorded on disk; `probegrid action=sync` sends it later."
        )


def send_recorded(folder: Path, tracking: TrackingConfig, progress: Progress) -> str | None:
    """Send a recorded cell to MLflow; where that fails, the cell stands, and why is said and returned.

    Args:
        folder: of the recorded cell.
        tracking: where it goes.
        progress: told what went wrong.
    """
    if tracking.backend is TrackingBackend.none:
        return None
    from probegrid.tracking.mlflow_sink import send

    try:
        send(folder, tracking)
    except TrackingError as error:
        progress.say(
            f"not sent to MLflow: {error} The result is in {folder}; `probegrid action=sync` sends it later."
        )
        return str(error)
    return None
