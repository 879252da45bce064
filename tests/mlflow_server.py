"""A real MLflow server on loopback, started and ended by whoever needs one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forked import Forked


@contextmanager
def run_server(folder: Path, migrated: Path, port: int) -> Iterator[str]:
    """Run ``mlflow server --serve-artifacts`` on a SQLite file in ``folder``; yield its URI.

    What an earlier server left in the folder is there again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "server.db").exists():
        shutil.copy(migrated, folder / "server.db")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet["PYTHONWARNINGS"] = ""  # a program of others, whose warnings are its own
    quiet["HF_HUB_OFFLINE"] = "1"  # as what it is forked from, for which it is started anew else
    with (folder / "server.log").open("wb") as log:
        server = Forked(
            command, env=os.environ | quiet, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for_answer(f"http://127.0.0.1:{port}/health", server, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait_for_answer(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            opener.open(url, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the MLflow server did not start:\n{log.read_text()}")


def free_port() -> int:
    """Ask the system for a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
