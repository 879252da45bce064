"""The MLflow that whoever calls us from Python has set up around us: the experiment, and the run, that is active there.

Knows MLflow's global state, which it reads and never changes. ``mlflow.set_tracking_uri`` sets ``MLFLOW_TRACKING_URI``,
which the config reads by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
_CHOSEN = "MLFLOW_EXPERIMENT_ID"
"""What ``mlflow.set_experiment`` leaves."""


@contextmanager
def experiment_around(overrides: Sequence[str]) -> Iterator[None]:
    """Compose within: `tracking.experiment`, where it is not typed, is that of the active run, or the one that was set.

    Args:
        overrides: as typed; where any is of ``tracking``, the caller chose, and nothing is looked at.
    """
    name = None if any(one.lstrip("+").startswith("tracking") for one in overrides) else _active()
    if name is None:
        yield
        return
    before = os.environ.get(_EXPERIMENT)
    os.environ[_EXPERIMENT] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[_EXPERIMENT]
        else:
            os.environ[_EXPERIMENT] = before


def _active() -> str | None:
    """The name of the experiment; None where MLflow is not in use, or its store does not answer."""
    if "mlflow" not in sys.modules:
        return None
    import mlflow
    from mlflow.exceptions import MlflowException

    run = mlflow.active_run()
    experiment_id = os.environ.get(_CHOSEN) if run is None else run.info.experiment_id
    if experiment_id is None or (run is None and _EXPERIMENT in os.environ):
        return None
    with suppress(MlflowException):  # said before the cell runs, and after
        return str(mlflow.get_experiment(experiment_id).name)
    return None
