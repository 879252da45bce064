"""Threads that sleep while they wait, and no more of them than a container's share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from probegrid.hardware import threads
from probegrid.hardware.threads import share_cores

NONE = (Path("/nowhere/cpu.max"), Path("/nowhere/cpu.cfs_quota_us"))


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_processors", lambda: 8)


def set_by(environment: dict[str, str], quotas: tuple[Path, Path] = NONE) -> dict[str, str]:
    share_cores(environment, quotas)
    return environment


def test_threads_sleep_while_they_wait() -> None:
    assert set_by({}) == {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_a_user_set_stays(name: str) -> None:
    assert set_by({name: "7", "OMP_NUM_THREADS": "5"}) == {name: "7", "OMP_NUM_THREADS": "5"}


@pytest.mark.parametrize(
    ("quota", "threads_"),
    [("150000 100000", "2"), ("800000 100000", None), ("max 100000", None), ("odd", None)],
)
def test_a_container_s_quota_bounds_their_number(tmp_path: Path, quota: str, threads_: str | None) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert set_by({}, (tmp_path / "cpu.max", NONE[1])).get("OMP_NUM_THREADS") == threads_


@pytest.mark.parametrize(("quota", "threads_"), [("300000", "3"), ("-1", None)])
def test_so_does_one_of_the_first_version(tmp_path: Path, quota: str, threads_: str | None) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert set_by({}, (NONE[0], tmp_path / "cpu.cfs_quota_us")).get("OMP_NUM_THREADS") == threads_


def test_it_is_set_before_torch_is_imported() -> None:
    """Where the program begins: what loads after it finds the setting, and torch is not loaded yet."""
    script = (
        "import os, sys; sys.argv = ['probegrid', '--version']\n"
        "import probegrid.cli as cli\n"
        "try: cli.command()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "PASSIVE"
