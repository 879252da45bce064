"""Send to MLflow what could not be sent when it was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from probegrid.errors import RunError
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_session import ServerUnreachable
from probegrid.tracking.mlflow_sink import Delivery, deliver
from probegrid.tracking.mlflow_sweep import SweepRun, deliver_sweep
from probegrid.tracking.record import own_keys


@dataclass(frozen=True)
class SyncReport:
    """What became of each recorded cell, by key, and of each sweep's own run, as ``sweep <id>``."""

    sent: tuple[str, ...]
    """Those whose run was made, or brought up to date, now."""
    already: tuple[str, ...]
    """Those whose run was there."""
    failed: Mapping[str, str]
    """Those that could not be sent, with the reason."""


def sync(
    results_dir: Path, tracking: TrackingConfig, sweeps: Mapping[str, Callable[[], SweepRun]] | None = None
) -> SyncReport:
    """Send every recorded cell that is not in MLflow yet, each once, whatever other processes send meanwhile.

    No link is followed out of ``results_dir``: what it leads to need not be for everybody's eyes.

    Nothing is raised for a cell that cannot be sent: the others are, and the report has the reason. When the
    server does not answer, what is left is not tried.

    Args:
        results_dir: folder of the recorded cells.
        tracking: where to send them.
        sweeps: parent runs to send as well, by the sweep's id; each is made when it is its turn.
    """
    sent: list[str] = []
    already: list[str] = []
    failed: dict[str, str] = {}
    deliveries: dict[str, Callable[[], Delivery]] = {
        f"sweep {sweep}": partial(_deliver_sweep, make, tracking) for sweep, make in (sweeps or {}).items()
    }
    deliveries |= {key: partial(deliver, results_dir / key, tracking) for key in own_keys(results_dir)}
    names = list(deliveries)
    for position, name in enumerate(names):
        try:
            delivery = deliveries[name]()
        except ServerUnreachable as error:
            failed |= dict.fromkeys(names[position:], str(error))
            break
        except RunError as error:
            failed[name] = str(error)
        else:
            (sent if delivery.is_new else already).append(name)
    return SyncReport(tuple(sent), tuple(already), failed)


def _deliver_sweep(make: Callable[[], SweepRun], tracking: TrackingConfig) -> Delivery:
    return deliver_sweep(make(), tracking)
