"""An MLflow experiment, open for writing: quiet, soon tired of a dead server, safe among many processes.

Whatever goes wrong comes out as one sentence in a `TrackingError`, secrets removed.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.disk import locked, no_permission
from probegrid.errors import TrackingError
from probegrid.progress import say
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_content import NOTE_TAG, experiment_note, experiment_tags, legal_name
from probegrid.tracking.mlflow_database import make_ready, sqlite_uri
from probegrid.tracking.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy.engine import URL

LOCK_TIMEOUT_S = 300
"""How long a process waits for another that sends the same cell, or to the same SQLite file."""

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_NOISY_LOGGERS = ("mlflow", "alembic", "urllib3.connectionpool")
_FIRST_CONTACT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_AT_WORK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
_LOCK_NUMBER = 0x70726F6265  # "probe"
"""What names our lock in a database server, where others may have locks of theirs."""
_MAX_REASON_LENGTH = 300
_BACKOFF = {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.5"}


class ServerUnreachable(TrackingError):
    """Nothing answers at the tracking URI: whatever else was to be sent there need not be tried."""


@dataclass(frozen=True)
class OpenExperiment:
    """Where runs go."""

    client: MlflowClient
    """Client of the tracking URI."""
    uri: str
    """The tracking URI, the same from every folder and without its password."""
    name: str
    """Name of the experiment."""
    id: str
    """MLflow's id of the experiment."""
    is_refilled: bool = False
    """Whether its database was broken and has just been made again, so that it lacks what was sent before."""


@contextmanager
def open_experiment(tracking: TrackingConfig) -> Iterator[OpenExperiment]:
    """Open an experiment, made where it does not exist, for the time of a ``with`` block.

    A SQLite file is made whole before MLflow sees it (`mlflow_database`), and held exclusively for that time.

    Raises:
        ServerUnreachable: nothing answers at ``tracking.uri``.
        TrackingError: MLflow refuses the URI, the experiment, or what is done in the block.
    """
    with _settings(_QUIET | _BACKOFF), _one_sentence(tracking.uri), _silence():
        from mlflow import MlflowClient

        sqlite_path = _sqlite_path(tracking.uri)
        uri = sqlite_uri(sqlite_path, tracking.uri) if sqlite_path else tracking.uri
        with _exclusive(sqlite_path) if sqlite_path else nullcontext():
            replaced = make_ready(sqlite_path) if sqlite_path else None
            if replaced is not None:
                say(replaced.sentence)
            with _settings(_FIRST_CONTACT), _first_contact_lock(uri):
                client = MlflowClient(tracking_uri=uri)
                experiment_id = _experiment_id(client, tracking.experiment, sqlite_path)
            with _settings(_AT_WORK):
                is_refilled = replaced is not None and replaced.is_empty
                yield OpenExperiment(client, redact(uri), tracking.experiment, experiment_id, is_refilled)


@contextmanager
def without_retries() -> Iterator[None]:
    """Send each request once: for requests that must not be repeated when only their answer was lost."""
    with _settings({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}, override=True):
        yield


def _url(uri: str) -> URL:
    from sqlalchemy.engine import make_url

    return make_url(uri)


def _sqlite_path(uri: str) -> Path | None:
    """Absolute path of the SQLite file that a tracking URI names; None for anything else."""
    if not uri.startswith("sqlite:"):
        return None
    database = _url(uri).database
    return Path(database).absolute() if database and database != ":memory:" else None


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), LOCK_TIMEOUT_S):
        yield


@contextmanager
def _first_contact_lock(uri: str) -> Iterator[None]:
    """Let one process at a time make MLflow's tables in a database server: they are not made safely by several at once.

    A killed process needs no mending there: PostgreSQL undoes what it had not finished, and gives its lock free.
    """
    if not uri.startswith("postgresql"):
        yield
        return
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_S * 1000}"))
        connection.execute(text(f"SELECT pg_advisory_lock({_LOCK_NUMBER})"))
        connection.commit()  # the lock is the session's, not the transaction's
        yield


def _experiment_id(client: MlflowClient, name: str, sqlite_path: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # beside the database, not below whatever folder the first process happened to run in
        artifacts = (sqlite_path.parent / "mlruns" / legal_name(name)).as_uri() if sqlite_path else None
        try:
            made = str(client.create_experiment(name, artifacts, tags=experiment_tags()))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        else:
            client.set_experiment_tag(made, NOTE_TAG, experiment_note(made))
            return made
        found = client.get_experiment_by_name(name)  # another process was quicker
    if found is None or found.lifecycle_stage != "active":
        command = (
            f"mlflow experiments restore --experiment-id {found.experiment_id}" if found else "MLflow's UI"
        )
        raise TrackingError(
            f"the MLflow experiment {name!r} was deleted; restore it ({command}) "
            "or set another tracking.experiment."
        )
    return str(found.experiment_id)


@contextmanager
def _one_sentence(uri: str) -> Iterator[None]:
    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
    from sqlalchemy.exc import SQLAlchemyError

    shown = redact(uri)
    try:
        yield
    except UnsupportedModelRegistryStoreURIException as error:
        raise TrackingError(
            f"tracking.uri={shown} is nothing MLflow can write to; give a database (sqlite:///mlflow.db) "
            "or a server (http://host:5000)."
        ) from error
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        cause = error.__cause__ or error.__context__
        lost = isinstance(error, MlflowException) and isinstance(cause, requests.RequestException)
        if lost and not isinstance(cause, requests.exceptions.InvalidURL):
            raise ServerUnreachable(
                f"MLflow at tracking.uri={shown} does not answer; start it or correct the URI."
            ) from error
        if isinstance(error, OSError) and error.filename:
            file = Path(error.filename)
            denied = no_permission(error, file)
            if denied is not None:
                raise TrackingError(
                    f"cannot write to MLflow at tracking.uri={shown}: {file}: {denied}; have it changed, or give "
                    "another file or a server (http://host:5000) in tracking.uri."
                ) from error
        lines = str(error).strip().splitlines()
        said = next((line for line in lines if not line.startswith("(raised as a result of")), "")
        reason = redact(said)[:_MAX_REASON_LENGTH].rstrip(".")
        raise TrackingError(f"cannot write to MLflow at tracking.uri={shown}: {reason}.") from error


@contextmanager
def _settings(values: Mapping[str, str], *, override: bool = False) -> Iterator[None]:
    """Set environment variables for a while; unless ``override``, those the user has set stay as they are."""
    before = {name: os.environ.get(name) for name in values if override or name not in os.environ}
    os.environ.update({name: values[name] for name in before})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what goes wrong is raised; MLflow would print its traceback too
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
