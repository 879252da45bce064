"""Whether MLflow will take a cell, asked before the cell runs: a server that answers, a file that can be written.

Knows addresses, and no MLflow: importing it would count among the memory that a cell is said to need.
"""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from probegrid.schema import TrackingBackend, TrackingConfig
from probegrid.tracking.redaction import redact

_PATIENCE_S = 4.0
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
    if kind in _PORTS and parts.hostname is not None:
        return _of_database(parts.hostname, parts.port or _PORTS[kind], shown)
    return None


def _of_server(uri: str, shown: str) -> str | None:
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    try:
        with urllib.request.urlopen(  # noqa: S310  # http or https
            f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health", timeout=_PATIENCE_S
        ):
            return None
    except urllib.error.HTTPError:
        return None  # somebody answers; whether they let us in, MLflow says
    except (OSError, ValueError):
        return f"MLflow at tracking.uri={shown} does not answer; start it or correct the URI."


def _of_file(uri: str, shown: str) -> str | None:
    """A file that is there and cannot be written, or whose folder cannot."""
    path = Path(uri.partition("://")[2].removeprefix("/").partition("?")[0])
    place = path if path.exists() else next(folder for folder in path.absolute().parents if folder.exists())
    if os.access(place, os.W_OK):
        return None
    return f"cannot write to MLflow at tracking.uri={shown}: no permission for {place}."


def _of_database(host: str, port: int, shown: str) -> str | None:
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE_S):
            return None
    except OSError:
        return f"nothing answers at tracking.uri={shown}; start the database or correct the URI."
