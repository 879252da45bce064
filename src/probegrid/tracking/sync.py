"""Send to MLflow what could not be sent when it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probegrid.errors import RunError
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_session import ServerUnreachable
from probegrid.tracking.mlflow_sink import deliver
from probegrid.tracking.record import recorded_keys


@dataclass(frozen=True)
class SyncReport:
    """What became of each recorded cell, by key."""

    sent: tuple[str, ...]
    """Cells whose run was made now."""
    already: tuple[str, ...]
    """Cells whose run was there."""
    failed: Mapping[str, str]
    """Cells that could not be sent, with the reason."""


def sync(results_dir: Path, tracking: TrackingConfig) -> SyncReport:
    """Send every recorded cell that is not in MLflow yet, each once, whatever other processes send meanwhile.

    Nothing is raised for a cell that cannot be sent: the others are, and the report has the reason. When the
    server does not answer, the cells that are left are not tried.
    """
    sent: list[str] = []
    already: list[str] = []
    failed: dict[str, str] = {}
    keys = recorded_keys(results_dir)
    for position, key in enumerate(keys):
        try:
            delivery = deliver(results_dir / key, tracking)
        except ServerUnreachable as error:
            failed |= dict.fromkeys(keys[position:], str(error))
            break
        except RunError as error:
            failed[key] = str(error)
        else:
            (sent if delivery.is_new else already).append(key)
    return SyncReport(tuple(sent), tuple(already), failed)
