"""Killed at any moment and started again, a cell ends with the answers of an uninterrupted run."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from probegrid.embedded import checkpoint_dir

KILLS = 10
QUESTIONS = 80
BATCH = 2


@pytest.fixture
def cell(checkpoint: Callable[[str], Path]) -> list[str]:
    """A cell of 40 small batches, on the embedded model where there is one."""
    custom = ["model=custom", f"model.path={checkpoint('llama')}", "model.dtype=float32"]
    model = ["model=tiny"] if (checkpoint_dir() / "config.json").exists() else custom
    return [*model, "tracking=none", f"dataset.num_samples={QUESTIONS}", f"decoding.batch_size={BATCH}"]


def start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def count_parts(folder: Path) -> int:
    return len(list(folder.glob("store/answers/*/part-*.parquet")))


def kill_after(command: Sequence[str], folder: Path, parts: int, delay_s: float) -> None:
    """Run until the store holds so many parts and some time has passed, then ``kill -9``."""
    process = start(command, folder)
    while count_parts(folder) < parts and process.poll() is None:
        time.sleep(0.005)
    time.sleep(delay_s)
    process.kill()
    assert process.wait() == -signal.SIGKILL, (folder / "log").read_text()


def answers(folder: Path) -> pd.DataFrame:
    (file,) = folder.glob("results/*/answers.parquet")
    return pd.read_parquet(file)


def test_a_cell_that_was_killed_ten_times_ends_as_if_it_never_was(
    cell: list[str], probegrid_command: Sequence[str], tmp_path: Path
) -> None:
    command = [*probegrid_command, *cell]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    uninterrupted = start(command, whole)
    moments = random.Random(2024)
    for parts in sorted(moments.choices(range(QUESTIONS // BATCH - 2), k=KILLS)):
        kill_after(command, killed, parts, moments.uniform(0.0, 0.2))
        assert not list(killed.glob("results/*/*"))
    assert count_parts(killed) > QUESTIONS // BATCH // 2
    assert start(command, killed).wait() == 0
    assert uninterrupted.wait() == 0
    pd.testing.assert_frame_equal(answers(killed), answers(whole), check_exact=True)
