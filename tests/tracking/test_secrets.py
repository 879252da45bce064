"""A password on the command line comes to light in no file and no output of a real command."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import forked
import pytest

PASSWORD = "pa ss:W0@RD"
TYPED = [
    f"'http://joe:{PASSWORD}@127.0.0.1:{{port}}'",
    "http\\://joe\\:pa\\ ss\\:W0@RD@127.0.0.1\\:{port}",
    '"http\\://joe\\:pa ss\\:W0@RD@127.0.0.1:{port}"',
]
"""The same URI, as Hydra's grammar lets it be typed; the last has backslashes in it."""
TRACES = re.compile(r"pa\W+ss|W0\W*@\W*RD", re.IGNORECASE)


@pytest.fixture
def probegrid(
    workdir: Path, probegrid_command: Sequence[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``probegrid`` in the empty folder, tracked."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*probegrid_command, *words]
        return forked.run(command, cwd=workdir, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.parametrize("sweeper", ["grid", "basic"])
def test_a_sweep_keeps_a_password_to_itself(
    probegrid: Callable[..., subprocess.CompletedProcess[str]], workdir: Path, port: int, sweeper: str
) -> None:
    """Under Hydra's own sweeper too, which writes down what was typed."""
    uri = f"tracking.uri={TYPED[0].format(port=port)}"
    words = ("-m", f"hydra/sweeper={sweeper}", "dataset.num_samples=20", "device_map=cpu", "seed=0")
    done = probegrid(*words, uri)
    assert "1 done" in done.stdout, done.stderr
    assert "joe" in done.stderr
    assert not TRACES.search(done.stdout + done.stderr)
    sweeps = workdir / "results" / ".sweeps"
    assert (sweeps / "multirun.yaml").exists() is (sweeper == "basic")
    files = [path for path in workdir.rglob("*") if path.is_file()]
    holding = [path for path in files if TRACES.search(path.read_bytes().decode("latin-1"))]
    assert [path.name for path in holding] == ["cells.pkl"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    shown = probegrid("action=status")
    assert "joe" in shown.stdout
    assert not TRACES.search(shown.stdout + shown.stderr)


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize(
    "others",
    [
        ["--cfg", "job"],
        ["--cfg", "all"],
        ["--info", "config"],
        ["dataset.num_samples=none", "debug=true"],
        ["dataset.num_samples=0"],
        ["model=tinny"],
        ["-m", "seed=0,x"],
    ],
    ids=" ".join,
)
def test_neither_a_config_nor_a_refusal_shows_a_password(
    probegrid: Callable[..., subprocess.CompletedProcess[str]], typed: str, others: list[str], port: int
) -> None:
    shown = probegrid(f"tracking.uri={typed.format(port=port)}", *others)
    assert shown.stdout or shown.stderr
    assert not TRACES.search(shown.stdout + shown.stderr)


def test_what_cannot_be_parsed_or_is_no_key_shows_no_password(
    probegrid: Callable[..., subprocess.CompletedProcess[str]], port: int
) -> None:
    for override in (
        f"tracking.uri='http://joe:{PASSWORD}@127.0.0.1:{port}' x",
        f"tracking.urri='http://joe:{PASSWORD}@127.0.0.1:{port}'",
        f"tracking=http://joe:{PASSWORD}@127.0.0.1:{port}",
        f"seed='http://joe:{PASSWORD}@127.0.0.1:{port}'",
    ):
        refused = probegrid(override)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert not TRACES.search(refused.stdout + refused.stderr)


def test_a_file_with_a_secret_is_private_whatever_the_umask(tmp_path: Path) -> None:
    from probegrid.tracking.sweep_folder import SweepFolder

    before = os.umask(0)
    try:
        folder = SweepFolder(tmp_path, "friday")
        folder.write_cells([None])
        folder.write_text(folder.summary_file, "token=abcdefgh")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder.path / "cells.pkl").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.summary_file.stat().st_mode) == 0o666
    assert folder.summary_file.read_text() == "token=***"
