"""On two GPUs or four: replicas read one cell, some are killed, and a sweep's packs run side by side.

``PROBEGRID_REHEARSE=1`` runs the same on the CPU, where nothing is said of cards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from sweep_helpers import FaultyModel, Grid, finish, wait_until

REHEARSED = os.environ.get("PROBEGRID_REHEARSE") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.device_count() < 2 and not REHEARSED, reason="needs two GPUs"),
]

COPIES = 2 if torch.cuda.device_count() in (2, 3) else 4
CARDS_A_PACK = COPIES // 2
QUESTIONS = 160
CELL = (
    "tracking=none",
    f"device_map={'cpu' if REHEARSED else 'auto'}",
    f"dataset.num_samples={QUESTIONS}",
    "prompt.num_few_shot=2",
    "decoding.max_new_tokens=6",
    "decoding.batch_size='4'",
)
Checkpoints = Callable[[str], Path]


@dataclass
class Machine:
    """A folder on a machine of two GPUs to run commands in, with a model that can be slowed down."""

    grid: Grid

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``python -m probegrid``."""
        command = [sys.executable, "-m", "probegrid", "--config-dir", str(self.grid.groups), *words]
        return subprocess.Popen(
            command,
            cwd=self.grid.folder,
            env=os.environ
            | dict(self.grid.environment)
            | {"XDG_CACHE_HOME": str(self.grid.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cell(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Start a cell with a store and results of its own."""
        return self.start(*CELL, "model=slow", f"store_dir={name}", f"results_dir={name}_results", *words)

    def record(self, name: str) -> dict[str, Any]:
        """The record of such a cell."""
        (file,) = (self.grid.folder / f"{name}_results").glob("*/result.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def answers(self, name: str) -> list[dict[str, Any]]:
        """What such a cell answered, by question."""
        (file,) = (self.grid.folder / f"{name}_results").glob("*/answers.parquet")
        return pq.read_table(file).to_pylist()

    def rows(self, name: str) -> Counter[str]:
        """How often each prompt's answer is in the store."""
        files = (self.grid.folder / name).glob("answers/*/part-*.parquet")
        return Counter(row["prompt"] for file in files for row in pq.read_table(file).to_pylist())

    def holders(self, name: str) -> set[int]:
        """The processes that hold a batch now."""
        found = set()
        for file in (self.grid.folder / name).glob("answers/*/.*.claim"):
            try:
                found.add(int(json.loads(file.read_text())["pid"]))
            except (FileNotFoundError, ValueError):
                continue
        return found


@pytest.fixture
def machine(tmp_path: Path, checkpoint: Checkpoints) -> Machine:
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    made = Machine(Grid(tmp_path, environment))
    made.grid.add_faulty("slow", checkpoint("llama"))
    return made


@pytest.fixture
def slow(machine: Machine) -> FaultyModel:
    folder = machine.grid.folder / "checkpoints"
    return FaultyModel("slow", folder / "slow", folder / "slow.fault")


def check_equal(machine: Machine, name: str, to: str) -> None:
    """Hold a cell to another one: the same answers, tokens and likelihoods."""
    assert finish(machine.cell(to)).returncode == 0
    for found, wanted in zip(machine.answers(name), machine.answers(to), strict=True):
        assert found["token_ids"] == wanted["token_ids"]
        assert found["token_logprobs"] == pytest.approx(wanted["token_logprobs"], abs=1e-5)
        assert found["answer"] == wanted["answer"]
    assert machine.record(name)["cell"] == machine.record(to)["cell"]


def test_replicas_give_the_answers_of_one(machine: Machine, slow: FaultyModel) -> None:
    slow.set("slow 0.5")
    shared = machine.cell("several", f"device_map.replicas={COPIES}")
    wait_until(lambda: len(machine.holders("several")) == COPIES, 240)
    slow.mend()
    ended = finish(shared)
    assert ended.returncode == 0
    assert f"{COPIES} copies as above share the reading" in ended.stderr
    record = machine.record("several")
    assert record["readers"] == COPIES
    if not REHEARSED:
        assert all(record["metrics"][f"peak_gpu_gb_{gpu}"] > 0 for gpu in range(COPIES))
    assert set(machine.rows("several").values()) == {1}
    check_equal(machine, "several", "one")


def test_replicas_killed_half_way_lose_and_double_nothing(machine: Machine, slow: FaultyModel) -> None:
    slow.set("slow 0.5")
    shared = machine.cell("several", f"device_map.replicas={COPIES}")
    wait_until(lambda: len(machine.holders("several")) == COPIES, 240)
    half = QUESTIONS // 2
    wait_until(lambda: sum(machine.rows("several").values()) >= half or shared.poll() is not None, 240)
    replicas = [
        child
        for child in psutil.Process(shared.pid).children()
        if "probegrid.cell.replica" in child.cmdline()
    ]
    assert len(replicas) == COPIES - 1
    for replica in replicas[: COPIES // 2]:
        replica.kill()
    slow.mend()
    ended = finish(shared)
    assert ended.returncode == 0
    assert ended.stderr.count("ended, the others go on without it") == COPIES // 2
    rows = machine.rows("several")
    assert (len(rows), set(rows.values())) == (QUESTIONS, {1})
    check_equal(machine, "several", "one")


def test_two_packs_of_a_sweep_run_side_by_side(machine: Machine, checkpoint: Checkpoints) -> None:
    grid = machine.grid
    models = [grid.add_faulty(name, checkpoint("llama"), mem_gb=1) for name in ("a", "b")]
    for model in models:
        model.set("wait")
    alone = [f"device_map.gpus={CARDS_A_PACK}", "device_map.strategy=balanced"]
    words = [*CELL, "model=a,b", *(["hydra.launcher.max_parallel=2"] if REHEARSED else alone)]
    launcher = machine.start("-m", *words)
    wait_until(lambda: grid.has_started() and grid.worker(0) and grid.worker(1), 240)
    cards = [psutil.Process(grid.worker(cell) or 0).environ().get("CUDA_VISIBLE_DEVICES") for cell in (0, 1)]
    models[1].mend()
    wait_until(lambda: grid.states()[1] == "done", 240)
    killed = grid.worker(0) or 0
    psutil.Process(killed).kill()  # its cell is submitted again
    wait_until(lambda: grid.worker(0) not in (None, killed), 240)
    models[0].mend()
    assert finish(launcher).returncode == 0
    assert grid.states() == ["done", "done"]
    answers = list(grid.folder.glob("results/*/answers.parquet"))
    assert len(answers) == 2  # of the same weights
    first, second = (pq.read_table(file, columns=["token_ids"]).to_pylist() for file in answers)
    assert first == second
    if not REHEARSED:
        sets = [{*str(each).split(",")} for each in cards]
        assert [len(each) for each in sets] == [CARDS_A_PACK] * 2
        assert not sets[0] & sets[1]
        for record in grid.records().values():
            assert all(record["metrics"][f"peak_gpu_gb_{gpu}"] > 0 for gpu in range(CARDS_A_PACK))
