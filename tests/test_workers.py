"""A run that is spread over forked processes says what one process says, whatever happens to them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # whole runs of pytest

FILE = """
import logging
import os
import signal
import sys
import warnings

import pytest

logging.getLogger("early").addHandler(logging.StreamHandler(sys.stderr))

@pytest.fixture(scope="session")
def service(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    (base / "started").touch()
    yield base
    (base / "ended").touch()

@pytest.fixture(scope="module")
def process():
    return os.getpid()

def test_first(service, process, tmp_path):
    print("said by the first")
    logging.getLogger("early").warning("said by the log")
    assert os.getpid() == process

def test_wrong(service):
    print("said by the wrong one")
    warnings.warn(DeprecationWarning("old"))
    assert [1, 2] == [1, 3]

@pytest.mark.skip(reason="not here")
def test_skipped():
    pass
"""
DIES = """
def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)

def test_after(service):
    pass
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    program = [sys.executable, "-m", "pytest", "-p", "workers", "-p", "no:cacheprovider", "--rootdir=."]
    return subprocess.Popen(
        [*program, "-c", os.devnull, f"--basetemp={folder / 'temporary'}", "-rA", *arguments],
        cwd=folder,
        env=os.environ | environment | {"PYTHONWARNINGS": "default"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str, stderr: str = "") -> tuple[int, str]:
    process = start(folder, *arguments)
    said, errors = process.communicate(timeout=120)
    assert stderr in errors if stderr else not errors
    return process.returncode, said


def write(folder: Path, content: str = FILE, count: int = 5) -> None:
    for number in range(count):
        (folder / f"test_{number}.py").write_text(content)


def outcomes(said: str) -> list[str]:
    return sorted(re.findall(r"^(?:PASSED|FAILED|SKIPPED|ERROR) .*$", said, re.MULTILINE))


def test_what_is_said_is_what_one_process_says(tmp_path: Path) -> None:
    write(tmp_path)
    status, alone = run(tmp_path)
    assert run(tmp_path, "--workers", "2")[0] == status == 1
    spread = run(tmp_path, "--workers", "3")[1]
    assert outcomes(spread) == outcomes(alone)
    assert "5 failed, 5 passed, 5 skipped, 5 warnings" in spread
    assert "DeprecationWarning: old" in spread
    for text in ("said by the first", "said by the log", "said by the wrong one", "assert [1, 2] == [1, 3]"):
        assert spread.count(text) == alone.count(text)
    folders = [*(tmp_path / "temporary").glob("worker*")]
    assert len(folders) == 3
    assert all((folder / "ended").exists() for folder in folders if (folder / "started").exists())


def test_a_process_that_dies_fails_its_test_and_no_other(tmp_path: Path) -> None:
    write(tmp_path, FILE + DIES, 2)
    status, said = run(tmp_path, "--workers", "2")
    assert status == 1
    assert "4 failed, 4 passed, 2 skipped" in said
    assert "the process that ran test_0.py::test_dies ended in it, with status -9" in said


def test_a_first_failure_ends_a_run_that_asks_for_it_and_its_services(tmp_path: Path) -> None:
    write(tmp_path)
    status, said = run(tmp_path, "--workers", "2", "-x")
    assert status == 1
    assert "stopping after 1 failures" in said
    folders = [*(tmp_path / "temporary").glob("worker*")]
    assert all((folder / "ended").exists() for folder in folders if (folder / "started").exists())


def test_what_the_session_shares_and_cannot_end_fails_the_run(tmp_path: Path) -> None:
    write(
        tmp_path, FILE.replace('(base / "ended").touch()', "raise ValueError").replace("[1, 3]", "[1, 2]"), 1
    )
    status, said = run(tmp_path, "--workers", "2", stderr="ValueError")
    assert status == 1
    assert "what tests share was not ended" in said


def test_an_interrupt_ends_the_services_of_all(tmp_path: Path) -> None:
    waits = (
        '\ndef test_waits(service):\n    (service / "waits").touch()\n    import time\n    time.sleep(60)\n'
    )
    write(tmp_path, FILE.replace("[1, 3]", "[1, 2]") + waits, 2)
    process = start(tmp_path, "--workers", "2")
    while len([*tmp_path.glob("temporary/worker*/waits")]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[0]
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert len([*tmp_path.glob("temporary/worker*/ended")]) == 2
