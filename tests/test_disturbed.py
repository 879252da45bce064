"""Whatever disturbs a command, at any moment, it ends as if it never was, and MLflow has each cell once.

``PROBEGRID_KILLS`` says at how many moments each command is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import disturbed
import forked
import pandas as pd
import pytest

import probegrid

KILLS = int(os.environ.get("PROBEGRID_KILLS", "4"))
SMALL = (
    "dataset.num_samples=12",
    "prompt.num_few_shot=1",
    "decoding.max_new_tokens=6",
    "decoding.batch_size='2'",
)
STATEMENTS = ("dataset=facts_statements", "dataset.num_samples=40", "probe=logistic")
CELLS: dict[str, tuple[str, ...]] = {
    "a first cell": SMALL,
    "a sampled cell": (
        *SMALL,
        "probe=semantic_entropy",
        "probe.entailment=exact",
        "decoding.num_generations=3",
    ),
    "activations": (*STATEMENTS, "probe.layers=all"),
    "a quantized load": (*SMALL, "quantization=nf4"),
}
OF_A_RUN = ("load_s", "read_s", "tokens_per_s", "examples_per_s", "peak_")
"""Metrics that say how a run went, and not what it found."""

pytestmark = pytest.mark.slow


@pytest.fixture
def model(checkpoint: Callable[[str], Path]) -> tuple[str, ...]:
    return ("model=custom", f"model.path={checkpoint('llama')}", "model.dtype=float32")


def disturb(folder: Path, how: str, times: int, *command: str) -> list[Path]:
    """Run, disturb and run on; the folders, the undisturbed one first."""
    program = forked.run(
        [sys.executable, disturbed.__file__, how, "5", str(times), str(folder), json.dumps(command)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert program.returncode == 0, program.stderr
    return [folder / "whole", *(folder / name for name in json.loads(program.stdout))]


def found(folder: Path) -> dict[str, object]:
    """What every recorded cell of a folder found, by its key."""
    return {
        path.parent.name: {
            name: value
            for name, value in json.loads(path.read_text())["metrics"].items()
            if not name.startswith(OF_A_RUN) and value == value
        }
        for path in folder.glob("results/*/result.json")
    }


def runs(folder: Path) -> list[str]:
    """The cells of MLflow's runs."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = (each for each in client.search_experiments() if each.name == "probegrid")
    tags = [run.data.tags for run in client.search_runs([experiment.experiment_id])]
    assert all("probegrid.complete" in tag for tag in tags if "probegrid.cell" in tag)
    return sorted(tag["probegrid.cell"] for tag in tags if "probegrid.cell" in tag)


SECONDS = ["readings", "reading_s", "own_s"]
"""What judges took, which no two cells have alike."""


def check_equal(whole: Path, others: list[Path]) -> None:
    for other in others:
        assert found(other) == found(whole), (other / "log").read_text()
        assert runs(other) == sorted(found(whole))
        for table in whole.glob("results/*/*.parquet"):
            same = other / table.relative_to(whole)
            first, second = (
                pd.read_parquet(file).drop(columns=SECONDS, errors="ignore") for file in (same, table)
            )
            pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell(cell: str, model: tuple[str, ...], tmp_path: Path, migrated: Path) -> None:
    """The first one makes MLflow's tables too, which takes half of its time; the others find them."""
    if cell != "a first cell":
        (tmp_path / "before").mkdir()
        shutil.copy(migrated, tmp_path / "before" / "mlflow.db")
    times = max(KILLS, 10) if cell == "a first cell" else KILLS
    whole, *killed = disturb(tmp_path, "kill", times, *model, *CELLS[cell])
    assert len(found(whole)) == 1
    check_equal(whole, killed)


@pytest.mark.parametrize("action", ["report", "sync"])
def test_an_action_on_what_is_recorded(
    action: str, model: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    for more in ((), ("quantization=nf4",), ("seed=1",)):
        probegrid.run([*model, *SMALL, *more, "tracking=none"])
    more = ("report.compare=quantization", "report.resamples=200") if action == "report" else ()
    whole, *killed = disturb(tmp_path, "kill", KILLS, f"action={action}", *more)
    for each in killed:
        assert found(each) == found(whole)
        if action == "sync":
            assert runs(each) == sorted(found(whole))
        else:
            for file in (file for file in whole.glob("report/**/*") if file.is_file()):
                assert (each / file.relative_to(whole)).read_bytes() == file.read_bytes(), file
            assert not [path for path in each.iterdir() if path.name.startswith(".")]


def test_the_launcher_of_a_sweep(model: tuple[str, ...], tmp_path: Path) -> None:
    """What it started goes on without it, and the next finds it."""
    sweep = ("-m", *model, *SMALL, "seed=0,1", "hydra.launcher.poll_s=0.1")
    whole, *killed = disturb(tmp_path, "kill", max(2, KILLS // 2), *sweep)
    assert len(found(whole)) == 2
    check_equal(whole, killed)


def test_a_disk_that_is_full_for_a_while(model: tuple[str, ...], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "probegrid", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        whole, *others = disturb(disk, "fill", KILLS, *model, *SMALL)
        check_equal(whole, others)
        assert "Traceback" not in "".join((each / "log").read_text() for each in others)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_six_at_once_in_a_fresh_folder(model: tuple[str, ...], tmp_path: Path) -> None:
    whole, *others = disturb(tmp_path, "together", 6, *model, *SMALL)
    check_equal(whole, others)
