"""Locks where the file system has them and where it has none (flock answers ENOLCK, by the kernel itself)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import no_locks
import pytest

HOLD = """
import sys, time
from pathlib import Path
from probegrid.disk import locked
with locked(Path(sys.argv[1]), lease_s=2):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
TAKE = """
import sys, time
from pathlib import Path
from filelock import Timeout
from probegrid.disk import locked
began = time.monotonic()
try:
    with locked(Path(sys.argv[1]), timeout_s=float(sys.argv[2]), lease_s=2):
        print("taken", time.monotonic() - began)
except Timeout:
    print("busy", time.monotonic() - began)
"""
WITH = [sys.executable]
WITHOUT = [sys.executable, no_locks.__file__, sys.executable]
without = pytest.mark.skipif(no_locks.FLOCK is None, reason="the filter knows x86_64 and aarch64 alone")
both = pytest.mark.parametrize("python", [WITH, pytest.param(WITHOUT, marks=without)], ids=["flock", "lease"])


def hold(python: Sequence[str], file: Path, seconds: float) -> subprocess.Popen[str]:
    """Start a process that has the lock for so long."""
    holder = subprocess.Popen(
        [*python, "-c", HOLD, str(file), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def take(python: Sequence[str], file: Path, timeout_s: float = -1) -> tuple[str, float]:
    """Try to take the lock in a process of its own: how it went, and after how many seconds."""
    ended = subprocess.run(
        [*python, "-c", TAKE, str(file), str(timeout_s)],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )
    word, seconds = ended.stdout.split()
    return word, float(seconds)


@pytest.mark.slow
@both
def test_one_at_a_time_and_the_next_when_it_is_free(python: list[str], tmp_path: Path) -> None:
    with hold(python, tmp_path / "lock", 2.5) as holder:
        word, waited = take(python, tmp_path / "lock")
        assert holder.wait(timeout=20) == 0
    assert word == "taken"
    assert waited > 0.3


@both
def test_a_killed_holder_of_this_host_is_followed_at_once(python: list[str], tmp_path: Path) -> None:
    with hold(python, tmp_path / "lock", 60) as holder:
        holder.kill()
    word, waited = take(python, tmp_path / "lock")
    assert word == "taken"
    assert waited < 5


def test_a_live_holder_is_told_of_at_once_where_there_are_locks(tmp_path: Path) -> None:
    with hold(WITH, tmp_path / "lock", 60) as holder:
        assert take(WITH, tmp_path / "lock", 0) == ("busy", pytest.approx(0, abs=1))
        holder.kill()


@pytest.mark.slow
@without
def test_a_lease_is_renewed_while_it_is_held(tmp_path: Path) -> None:
    with hold(WITHOUT, tmp_path / "lock", 60) as holder:
        word, waited = take(WITHOUT, tmp_path / "lock", 0)
        holder.kill()
    assert word == "busy"
    assert waited > 3  # as long as a dead holder on another host would have it


@pytest.mark.slow
@without
def test_a_lease_of_a_host_that_died_passes_on(tmp_path: Path) -> None:
    with hold(WITHOUT, tmp_path / "lock", 60) as holder:
        holder.kill()
    (lease,) = tmp_path.glob("lock.*")
    lines = lease.read_text().splitlines(keepends=True)
    elsewhere = ["host=elsewhere\n" if line.startswith("host=") else line for line in lines]
    assert elsewhere != lines
    lease.write_text("".join(elsewhere))
    word, waited = take(WITHOUT, tmp_path / "lock", 0)
    assert word == "taken"
    assert 1.5 < waited < 10
