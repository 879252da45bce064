"""Packs side by side on a machine of several GPUs (a driver's program that lists four), and jobs that share a cell."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import forked
import psutil
import pytest
from alone import numbers_alone
from sweep_helpers import FaultyModel, Grid, finish, wait_until

FAST = (
    "dataset.num_samples=4",
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "hydra.launcher.poll_s=0.3",
    "device_map=cpu",
)
FOUR = "decoding.batch_size='4'"
Checkpoints = Callable[[str], Path]


@pytest.fixture
def four_gpus(grid: Grid, tmp_path: Path) -> Grid:
    """A grid on a machine whose driver lists four GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    listed = "".join(f"{index}, GPU-{name}, NVIDIA H100 80GB, 81000\n" for index, name in enumerate("abcd"))
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{listed}END\n")
    program.chmod(0o755)
    grid.environment = dict(grid.environment) | {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    grid.anew = True
    return grid


def workers(grid: Grid) -> dict[str, str | None]:
    """The jobs' processes that live: of each model the cards that it sees."""
    found: dict[str, str | None] = {}
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "probegrid.sweep.worker" in words and process.cwd() == str(grid.folder):
                name = grid.jobs()[0]["name"] if len(grid.jobs()) == 1 else words[-1]
                found[name] = process.environ().get("CUDA_VISIBLE_DEVICES")
        except psutil.Error:
            continue
    return found


def waiting_model(grid: Grid, name: str, checkpoint: Checkpoints, gpus: int) -> FaultyModel:
    model = grid.add_faulty(name, checkpoint("llama"), gpus=gpus, mem_gb=1)
    model.set("wait")
    return model


def test_packs_run_side_by_side_each_with_cards_of_its_own(four_gpus: Grid, checkpoint: Checkpoints) -> None:
    grid = four_gpus
    models = [waiting_model(grid, f"m{gpus}", checkpoint, gpus) for gpus in (1, 2, 3)]
    launcher = grid.start(*FAST, "model=m1,m2,m3")
    wait_until(lambda: grid.has_started() and grid.worker(0) and grid.worker(1))
    assert workers(grid) == {"0": "GPU-a", "1": "GPU-b,GPU-c"}
    assert "2 running" in (shown := grid.look("action=status"))
    assert "1 queued" in shown
    models[0].mend()  # one card more is not enough for the third
    wait_until(lambda: grid.states()[0] == "done")
    assert grid.worker(2) is None
    models[1].mend()
    wait_until(lambda: grid.worker(2))
    assert workers(grid) == {"2": "GPU-a,GPU-b,GPU-c"}
    models[2].mend()
    assert finish(launcher).returncode == 0
    assert grid.states() == ["done"] * 3


def test_max_parallel_limits_them_and_only_visible_cards_are_given(
    four_gpus: Grid, checkpoint: Checkpoints
) -> None:
    grid = four_gpus
    grid.environment = dict(grid.environment) | {"CUDA_VISIBLE_DEVICES": "3,1,GPU-a"}
    models = [waiting_model(grid, name, checkpoint, 1) for name in ("a", "b", "c")]
    launcher = grid.start(*FAST, "model=a,b,c", "hydra.launcher.max_parallel=2")
    wait_until(lambda: grid.has_started() and grid.worker(0) and grid.worker(1))
    assert workers(grid) == {"0": "3", "1": "1"}
    for model in models:
        model.mend()
    assert finish(launcher).returncode == 0
    assert grid.states() == ["done"] * 3


def test_ctrl_c_ends_all_that_run(four_gpus: Grid, checkpoint: Checkpoints) -> None:
    grid = four_gpus
    for name in ("a", "b"):
        waiting_model(grid, name, checkpoint, 1)
    launcher = grid.start(*FAST, "model=a,b")
    wait_until(lambda: grid.has_started() and grid.worker(0) and grid.worker(1))
    launcher.send_signal(signal.SIGINT)
    assert "2 cancelled" in finish(launcher).stdout
    wait_until(lambda: not workers(grid))


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoints
) -> Mapping[tuple[int, int], dict[str, str]]:
    """What the cell of many questions says alone."""
    folder = tmp_path_factory.mktemp("alone")
    return numbers_alone(folder, checkpoint("llama"), [*FAST[1:3], FOUR], samples=[200], seeds=[0])


def test_jobs_share_a_cell_and_any_of_them_may_die(
    grid: Grid, checkpoint: Checkpoints, reference: Mapping[tuple[int, int], dict[str, str]]
) -> None:
    grid.add_faulty("shared", checkpoint("llama"), mem_gb=1).set("slow 0.2")
    jobs = ("hydra.launcher.jobs_per_cell=3", "hydra.launcher.max_parallel=3")
    words = (*FAST, "model=shared", "dataset.num_samples=200", FOUR, *jobs)
    launcher = grid.start(*words)
    wait_until(lambda: grid.has_started() and len(at_work(grid)) == 3)
    killed = at_work(grid)[0]
    os.kill(killed, signal.SIGKILL)
    ended = finish(launcher)
    assert ended.returncode == 0
    assert [job["cells"] for job in grid.jobs()] == [[0]] * 3  # nothing had to be submitted again
    assert grid.numbers_by_draw() == reference
    (record,) = grid.records().values()
    assert record["readers"] >= 2
    assert record["notes"].get("read_s") is None  # all of it was read by these jobs


def at_work(grid: Grid) -> list[int]:
    """The processes that hold or have held a batch of the only reading."""
    logs = [grid.folder / job["log"] for job in grid.jobs()]
    file = grid.sweep() / "submissions" / "1" / "runner.json"
    if not file.exists():  # it is being started
        return []
    runner = json.loads(file.read_text())
    children = psutil.Process(runner["pid"]).children()
    pids = [child.pid for child in children if child.name() != forked.SERVER]
    return (
        pids if all("loaded " in log.read_text() for log in logs if log.exists()) and len(logs) == 3 else []
    )
