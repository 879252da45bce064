"""``action=report`` as a command: alone, with a grid, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from sweep_helpers import Grid

from probegrid.cell.run import Result
from probegrid.compose import compose_cell
from probegrid.sweep.grid import ComposedCell
from probegrid.sweep.launch import sweep_id

FAST = ("dataset.num_samples=40", "decoding.max_new_tokens=6")


def test_the_keys_of_a_report_are_no_part_of_a_cell(run: Callable[..., Result]) -> None:
    first = run(*FAST)
    second = run(*FAST, "report.compare=quantization", "report.folder=elsewhere")
    assert second.was_done
    assert second.key == first.key
    assert "report" not in yaml.safe_load((first.folder / "config.yaml").read_text())


def test_the_keys_of_a_report_do_not_change_a_sweep() -> None:
    def identity(*overrides: str) -> str:
        return sweep_id([ComposedCell(overrides, compose_cell(overrides))])

    assert identity("seed=1") == identity("seed=1", "action=report", "report.compare=probe")
    assert identity("seed=1") != identity("seed=2")


@pytest.mark.slow  # a program of its own
def test_a_report_needs_no_torch(run: Callable[..., Result], workdir: Path) -> None:
    run(*FAST)
    code = (
        "import atexit, sys; atexit.register(lambda: print([m for m in ('torch', 'transformers', 'mlflow') "
        "if m in sys.modules]))\nfrom probegrid.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "action=report"]
    done = subprocess.run(command, cwd=workdir, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "1 cell" in done.stdout
    assert (workdir / "report" / "index.html").exists()


def test_what_is_wrong_is_one_sentence(run: Callable[..., Result], command: Callable[..., object]) -> None:
    run(*FAST)
    refused = command("action=report", "report.compare=quantisation")
    assert isinstance(refused, subprocess.CompletedProcess)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "probegrid: report.compare=quantisation is neither a group nor a key; did you mean"
    )
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path, {"HF_HUB_OFFLINE": "1"}, tracking="mlflow")


def test_a_grids_command_reports_on_its_own_sweep_alone(grid: Grid) -> None:
    """And its sweep's run in MLflow has the report: the table as its description, the files as artifacts."""
    from mlflow import MlflowClient

    assert grid.run("seed=7", *FAST, "hydra.launcher.poll_s=0.3").returncode == 0
    command: Sequence[str] = (*FAST, "prompt.num_few_shot=0,2", "hydra.launcher.poll_s=0.3")
    assert grid.run(*command, "report.compare=prompt.num_few_shot").returncode == 0
    shown = grid.run(*command, "action=report")
    assert shown.returncode == 0
    assert "2 cells, all with" in shown.stdout
    assert shown.stdout.count("report: index.html") == 1
    assert "3 cells" in grid.look("tracking=mlflow", "action=report")

    client = MlflowClient(f"sqlite:///{grid.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("probegrid")
    assert experiment is not None
    condition = f"tags.`probegrid.kind` = 'sweep' and tags.`probegrid.sweep` = '{grid.sweep().name}'"
    (parent,) = client.search_runs([experiment.experiment_id], condition)
    note = parent.data.tags["mlflow.note.content"]
    assert "| prompt.num_few_shot | n | answer accuracy | AUROC |" in note
    assert "prompt.num_few_shot compared on the same examples" in note
    found = {item.path for item in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/index.html", "report/table.csv", "report/comparisons.md", "report/figures"} <= found
    assert "report.compare" not in json.dumps(
        [run.data.params for run in client.search_runs([experiment.experiment_id])]
    )
