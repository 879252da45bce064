"""Whether MLflow will take a cell, asked before the cell runs: a server that answers, a file that can be written.

What MLflow refuses by its kind (a folder, another scheme, a file that is no database, a driver that is missing) is told
too.

Knows addresses, and no MLflow: importing it would count among the memory that a cell is said to need.
"""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from http import HTTPStatus
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from probegrid.schema import TrackingBackend, TrackingConfig
from probegrid.tracking.redaction import redact

_PATIENCE_S = 4.0
_EXPERIMENT = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=probegrid"
_MOST_READ = 2_000
_SQLITE = b"SQLite format 3\x00"
_BY_NAME = ("databricks", "databricks-uc", "uc")
"""What MLflow knows without a scheme, or by one of its own."""
_DRIVERS = {"postgresql": "psycopg2", "mysql": "MySQLdb", "mssql": "pyodbc"}
"""What SQLAlchemy imports where a URI names no driver."""
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def obstacle(tracking: TrackingConfig) -> str | None:
    """Why a cell will hardly reach MLflow, in a sentence; None where nothing speaks against it.

    Args:
        tracking: where the cell is to be sent.
    """
    if tracking.backend is TrackingBackend.none:
        return None
    shown, parts = redact(tracking.uri), urlsplit(tracking.uri)
    kind = parts.scheme.partition("+")[0]
    if kind in ("http", "https"):
        return _of_server(tracking.uri, shown)
    if kind == "sqlite":
        return _of_file(tracking.uri, shown)
    if kind in _PORTS:
        return _of_database(parts, shown)
    if kind in ("", "file") and tracking.uri not in _BY_NAME:
        return (
            f"tracking.uri={shown} is a folder, which MLflow takes no more; give a database (sqlite:///mlflow.db) or a "
            "server (http://host:5000)."
        )
    if kind and kind not in (*_BY_NAME, *entry_points(group="mlflow.tracking_store").names):
        return (
            f"tracking.uri={shown} is nothing MLflow can write to; give a database (sqlite:///mlflow.db) or a server "
            "(http://host:5000)."
        )
    return None


def _of_server(uri: str, shown: str) -> str | None:
    parts = urlsplit(uri)
    base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    try:
        if _answers(f"{base}/health") or _answers(f"{base}{_EXPERIMENT}"):
            return None
    except (OSError, ValueError):
        return f"MLflow at tracking.uri={shown} does not answer; start it or correct the URI."
    return f"what answers at tracking.uri={shown} is no MLflow server; correct the URI."


def _answers(address: str) -> bool:
    """Whether MLflow may stand behind an address: all but pages that it would know, and are not there.

    MLflow says of an experiment that it does not know in JSON that it is not there.
    """
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE_S):  # noqa: S310  # http or https
            return True
    except urllib.error.HTTPError as error:  # whether they let us in, MLflow says
        return error.code != HTTPStatus.NOT_FOUND or b"error_code" in error.read(_MOST_READ)


def _of_file(uri: str, shown: str) -> str | None:
    """A file that is there and cannot be written, or whose folder cannot."""
    path = Path(uri.partition("://")[2].removeprefix("/").partition("?")[0])
    place = path if path.exists() else next(folder for folder in path.absolute().parents if folder.exists())
    if not os.access(place, os.W_OK):
        return f"cannot write to MLflow at tracking.uri={shown}: no permission for {place}."
    if path.is_dir():
        return f"tracking.uri={shown} is a folder, and MLflow's database a file; give one in it: {shown}/mlflow.db."
    if path.is_file() and path.stat().st_size and not _is_database(path):
        return f"tracking.uri={shown} is no database; give MLflow a file of its own."
    return None


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _of_database(parts: SplitResult, shown: str) -> str | None:
    kind, _, named = parts.scheme.partition("+")
    driver = named or _DRIVERS[kind]
    if find_spec(driver) is None:
        return f"tracking.uri={shown} takes the Python module {driver}, which is not installed; install its package."
    if parts.hostname is None:
        return None  # a socket of this machine
    try:
        with socket.create_connection((parts.hostname, parts.port or _PORTS[kind]), timeout=_PATIENCE_S):
            return None
    except OSError:
        return f"nothing answers at tracking.uri={shown}; start the database or correct the URI."
