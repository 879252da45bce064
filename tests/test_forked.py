"""A program that is forked is what it would be if it were started, but for what is imported already."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from forked import Forked

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere programs are started as ever"),
]

LOOK = """
import json, os, signal, sys
stream = sys.stdin.read()
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "name": __name__, "stdin": stream,
    "environment": dict(os.environ), "parent": os.getppid(), "leads": os.getsid(0) == os.getpid(),
    "umask": os.umask(0), "hangup": signal.getsignal(signal.SIGHUP).name,
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "open": [number for number in range(3, 64) if os.path.exists(f"/proc/self/fd/{number}") and
             os.readlink(f"/proc/self/fd/{number}").startswith(("socket", "pipe"))],
    "buffered": [sys.stdout.write_through, sys.stdout.line_buffering, sys.stderr.line_buffering],
}))
print("said", file=sys.stderr)
"""
ENDS: dict[str, tuple[str, int]] = {
    "nothing": ("pass", 0),
    "a status": ("import sys; sys.exit(3)", 3),
    "a sentence": ("import sys; sys.exit('no')", 1),
    "an exception": ("raise ValueError('no')", 1),
    "an interrupt": ("raise KeyboardInterrupt", -signal.SIGINT),
    "a kill": ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    "its own end": ("import os; os._exit(7)", 7),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the servers have none: else nothing is forked, and what is started is compared with itself."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def looked(run: Callable[..., Any], folder: Path, **options: Any) -> dict[str, Any]:
    """What a program sees of itself."""
    words = [sys.executable, "-c", LOOK, "one", "two words"]
    environment = os.environ | {"MINE": "a=b\nc"}
    done = run(
        words,
        cwd=folder,
        env=environment,
        input="typed",
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "said\n"
    return dict(json.loads(done.stdout))


def run_forked(words: list[str], *, input: str, capture_output: bool, timeout: int, **options: Any) -> Any:  # noqa: A002
    with Forked(words, stdin=-1, stdout=-1, stderr=-1, **options) as process:
        out, err = process.communicate(input, timeout=timeout)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.mark.parametrize("options", [{}, {"start_new_session": True}], ids=["", "a session of its own"])
def test_it_sees_what_a_started_one_sees(tmp_path: Path, options: dict[str, Any]) -> None:
    umask, hangup = os.umask(0o027), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        ours, started = (looked(run, tmp_path, **options) for run in (run_forked, subprocess.run))
    finally:
        os.umask(umask)
        signal.signal(signal.SIGHUP, hangup)
    assert ours.pop("open")[1:] == started.pop("open")  # the first is to its own server
    assert ours == started
    assert ours["parent"] == os.getpid()
    assert ours["umask"] == 0o027


@pytest.mark.parametrize("code", ENDS)
def test_it_ends_as_a_started_one_ends(code: str) -> None:
    program, status = ENDS[code]
    words = [sys.executable, "-c", program]
    ours, started = (
        run(words, capture_output=True, text=True, timeout=60) for run in (forked.run, subprocess.run)
    )
    assert ours.returncode == started.returncode == status
    assert ours.stdout == started.stdout
    assert ours.stderr.splitlines()[-1:] == started.stderr.splitlines()[-1:]


def test_it_has_its_imports_and_a_light_one_no_torch() -> None:
    code = "import sys; print('torch' in sys.modules, 'mlflow' in sys.modules)"
    assert forked.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True True\n"
    script = Path(sys.executable).with_name("probegrid")
    done = forked.run([str(script), "-m", "seed=0", "dataset=nosuch"], capture_output=True, text=True)
    assert done.returncode == 2
    assert forked._kind_of([str(script), "-m", "seed=0"]) == "light"
    assert forked._kind_of([str(script), "seed=0"]) == "heavy"


def test_by_way_of_a_shell_it_hands_on_signals_and_ends_alike(tmp_path: Path) -> None:
    code = (
        "import os, signal, time; signal.signal(signal.SIGUSR2, lambda *_: os._exit(5)); "
        "print(os.environ['MINE'], os.getcwd(), flush=True); [time.sleep(0.1) for _ in range(600)]"
    )  # a signal that comes just before a sleep is heard after it
    file = tmp_path / "own.py"
    file.write_text(code)
    for sent, status in ((signal.SIGUSR2, 5), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -9)):
        words = ["sh", "-c", f"exec {forked.python()} -u own.py"]
        environment = os.environ | {"MINE": "here"}
        with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=-1, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == f"here {tmp_path}\n"
            process.send_signal(sent)
            assert process.wait(timeout=60) == status
            assert process.stdout.read() == ""  # what it stood for has ended too


def test_a_server_outlives_those_who_ask_and_are_gone(tmp_path: Path) -> None:
    """As a cancelled job is, which was killed while the server still imported."""
    address = shlex.split(forked.python())[-1]
    program = forked._forkable(
        {
            **dict.fromkeys(forked._SPECIAL),
            "args": [sys.executable, "-c", "pass"],
            "cwd": tmp_path,
            "env": os.environ | {"HF_HUB_OFFLINE": "1"},  # as the server has it
            "umask": -1,
            "process_group": -1,
            "start_new_session": False,
        }
    )
    assert program is not None
    for waits in [True, False] * 8:
        with socket.socket(socket.AF_UNIX) as asker:
            asker.connect(address)
            with open(os.devnull) as nothing:
                forked.send(asker, program | {"waits": waits}, [nothing.fileno()] * 3)
    done = subprocess.run(
        ["sh", "-c", f"exec {forked.python()} -c 'print(1)'"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"1\n")


def test_a_copy_of_what_has_computed_computes_in_many_threads_at_once() -> None:
    number = torch.get_num_threads()
    torch.set_num_threads(4)  # which take their time to start
    weights = torch.empty(400_000)  # enough for torch to divide it
    for _ in range(8):
        copy = os.fork()
        if copy == 0:
            together = threading.Barrier(6)
            with ThreadPoolExecutor(6) as threads:
                done = [threads.submit(_convert, weights, together) for _ in range(6)]
            os._exit(any(each.exception() for each in done))
        assert os.waitpid(copy, 0)[1] == 0
    torch.set_num_threads(number)


def _convert(weights: torch.Tensor, together: threading.Barrier) -> None:
    together.wait()
    weights.to(torch.bfloat16)
