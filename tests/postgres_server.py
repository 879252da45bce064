"""A throwaway PostgreSQL cluster on loopback, as a user who is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow_server import free_port


def why_not() -> str | None:
    """Why there can be no cluster here, in one sentence; None if there can."""
    if _program("initdb") is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (pip install psycopg[binary])"
    if os.geteuid() == 0 and _user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return None


@contextmanager
def run_postgres() -> Iterator[str]:
    """Run a cluster; yield the URI of its database ``postgres``, whose owner has a password."""
    port, user = free_port(), _user()
    folder = Path(tempfile.mkdtemp(prefix="probegrid-postgres-"))
    as_user: dict[str, object] = {}
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    data, password = str(folder / "data"), folder / "password"
    password.write_text("pro be@grid")
    password.chmod(0o644)
    log = (folder / "log").open("wb")
    quiet = {"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **as_user}
    init = ["-D", data, "-U", "probe", "-A", "scram-sha-256", "--pwfile", str(password), "--no-sync"]
    settings = [
        "listen_addresses=127.0.0.1",
        f"port={port}",
        f"unix_socket_directories={folder}",
        "fsync=off",
    ]
    try:
        subprocess.run([str(_program("initdb")), *init], check=True, timeout=120, **quiet)  # type: ignore[call-overload]
        options = [word for setting in settings for word in ("-c", setting)]
        server = subprocess.Popen([str(_program("postgres")), "-D", data, *options], **quiet)  # type: ignore[call-overload]
        try:
            _wait_for_answer(port, server)
            yield f"postgresql+psycopg://probe:pro%20be%40grid@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            server.wait(timeout=60)
    finally:
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_answer(port: int, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            psycopg.connect(f"postgresql://probe:pro%20be%40grid@127.0.0.1:{port}/postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the PostgreSQL server did not start")


def _program(name: str) -> Path | None:
    """A program of PostgreSQL's: Debian puts them beside no other."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found[-1] if found else Path(path) if (path := shutil.which(name)) else None


def _user() -> pwd.struct_passwd | None:
    """Who runs the cluster where this is root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None
