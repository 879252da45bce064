"""Grids on this machine: packs, states, failures, resuming, presets, and what is refused before anything runs."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import no_locks
import psutil
import pytest
from alone import numbers_alone
from sweep_helpers import Grid, finish, wait_until

from probegrid.report.summary import numbers
from probegrid.tracking import record

FAST = (
    "dataset.num_samples=4",
    "decoding.max_new_tokens=4",
    "prompt.num_few_shot=0",
    "hydra.launcher.poll_s=0.3",
)


def said(grid: Grid, key: str) -> list[str]:
    """What a sweep says of a done cell, by its record; nothing of one that failed."""
    found = record.read(grid.folder / "results", key)
    assert found is not None
    return [] if found.error else numbers(found)


def last_column(table: str) -> str:
    """What stands in the last column of a printed table, its lines joined."""
    return " ".join(line.split("│")[-2].strip() for line in table.splitlines() if line.startswith("│"))


Checkpoints = Callable[[str], Path]
Numbers = Mapping[tuple[int, int], dict[str, str]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoints) -> Numbers:
    """What this module's cells of the one checkpoint say alone, by questions and seed."""
    folder = tmp_path_factory.mktemp("alone")
    return numbers_alone(folder, checkpoint("llama"), FAST[1:3], samples=[4], seeds=[0, 1])


def test_packs_failures_and_the_same_command_again(
    grid: Grid, checkpoint: Checkpoints, reference: Numbers
) -> None:
    sick = grid.add_faulty("sick", checkpoint("llama"))
    grid.add_faulty("sound", checkpoint("llama"))
    sick.set("raise")
    command = (*FAST, "model=sick,sound", "seed=0,1")

    first = grid.run(*command)
    assert first.returncode == 1
    assert "Traceback" not in first.stderr
    assert (
        first.stderr.strip()
        .splitlines()[-1]
        .startswith("probegrid: 1 of 4 cells are not done (3 done, 1 failed)")
    )
    assert "Sick: this cell fails" in first.stdout
    assert grid.states() == ["failed", "done", "done", "done"]
    done = [texts for key in grid.records() if (texts := said(grid, key))]
    for shown in (first.stderr, last_column(first.stdout), last_column(grid.look("action=status"))):
        assert [", ".join(texts) in shown for texts in done] == [True] * 3
    assert len({found["name"] for found in grid.records().values()}) == 4
    failed = [found for found in grid.records().values() if found["status"] == "failed"]
    assert [found["error"]["type"] for found in failed] == ["Sick"]
    assert "this cell fails" in (grid.sweep() / "tracebacks" / "0.txt").read_text()
    logs = [Path(grid.folder / job["log"]).read_text() for job in grid.jobs()]
    assert [log.count("loaded ") for log in logs] == [1, 1]

    again = grid.run(*command)
    assert again.returncode == 0
    assert "4 cells: 3 done already, 0 on their way, 1 to run" in again.stderr
    assert "4 done (3 of them before)" in again.stdout
    assert {found["status"] for found in grid.records().values()} == {"done"}
    rows = grid.summary()
    assert [row["state"] for row in rows] == ["done"] * 4
    assert all(row["accuracy"] for row in rows)
    assert grid.numbers_by_draw() == reference

    nothing = grid.run(*command)
    assert nothing.returncode == 0
    assert len(list(grid.sweep().glob("submissions/*.json"))) == 2


def test_a_killed_worker_is_started_again_once(
    grid: Grid, checkpoint: Checkpoints, reference: Numbers
) -> None:
    grid.add_faulty("sick", checkpoint("llama")).set("kill")
    ended = grid.run(*FAST, "model=sick", "seed=0,1")
    assert ended.returncode == 0
    assert grid.states() == ["done", "done"]
    assert [job["cells"] for job in grid.jobs()] == [[0, 1], [1, 0]]  # the suspect last
    assert grid.numbers_by_draw() == reference


@pytest.mark.parametrize("detach", ["false", "true"])
def test_max_failures_stops_early_and_says_so(grid: Grid, checkpoint: Checkpoints, detach: str) -> None:
    grid.add_faulty("sick", checkpoint("llama")).set("raise")
    grid.add_model("sound", checkpoint("llama"))
    options = ("hydra.launcher.max_failures=1", f"hydra.launcher.detach={detach}")
    command = (*FAST, *options, "model=sick,sound", "seed=0,1")
    ended = grid.run(*command)
    wait_until(grid.is_closed)  # by the last job, where nobody waits
    assert grid.states() == ["failed", None, None, None]
    rows = grid.summary()
    assert [row["state"] for row in rows] == ["failed", "cancelled", "cancelled", "cancelled"]
    shown = grid.run(*command, "action=status").stdout if detach == "true" else ended.stdout
    assert "max_failures=1 was reached: no further cell was begun" in " ".join(shown.split())
    if detach == "false":
        assert ended.returncode == 1
        assert "max_failures=1 was reached" in ended.stderr.strip().splitlines()[-1]
    again = grid.run(*FAST, "model=sick,sound", "seed=0,1")  # it goes on, and the end is past
    assert again.returncode == 0
    assert "was reached" not in again.stdout


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_a_sweep_once_and_are_said(
    grid: Grid, checkpoint: Checkpoints, sent: signal.Signals, status: int
) -> None:
    grid.add_faulty("slow", checkpoint("llama")).set("slow 1")
    launcher = grid.start(*FAST, "model=slow")
    wait_until(lambda: list((grid.folder / "results").glob(".sweeps/*/states/0.json")))
    launcher.send_signal(sent)
    for _ in range(3):  # impatience changes nothing
        time.sleep(0.05)
        launcher.send_signal(signal.SIGINT)
    ended = finish(launcher)
    assert ended.returncode == status
    assert "1 cancelled" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert (
        ended.stderr.strip().splitlines()[-1].startswith("probegrid: interrupted; the same command goes on")
    )
    runner = json.loads((grid.sweep() / "submissions" / "1" / "runner.json").read_text())
    wait_until(lambda: not psutil.pid_exists(runner["pid"]))


def test_a_closed_terminal_ends_a_sweep_too(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_faulty("slow", checkpoint("llama")).set("slow 1")
    terminal, inside = pty.openpty()
    launcher = grid.start_in(inside, *FAST, "model=slow")
    os.close(inside)
    wait_until(lambda: list((grid.folder / "results").glob(".sweeps/*/states/0.json")))
    os.close(terminal)  # what it prints now goes nowhere
    assert launcher.wait(timeout=60) == 129
    assert "1 cancelled" in grid.run(*FAST, "model=slow", "action=status").stdout


def test_whoever_read_its_output_may_end_first(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_faulty("slow", checkpoint("llama")).set("slow 1")
    launcher = grid.start(*FAST, "model=slow")
    wait_until(lambda: list((grid.folder / "results").glob(".sweeps/*/states/0.json")))
    for stream in (launcher.stdout, launcher.stderr):  # as of `| tee log`, which Ctrl-C ends too
        assert stream is not None
        stream.close()
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=60) == 130
    assert "1 cancelled" in grid.run(*FAST, "model=slow", "action=status").stdout


def test_a_launcher_under_nohup_outlives_its_terminal(grid: Grid, checkpoint: Checkpoints) -> None:
    slow = grid.add_faulty("slow", checkpoint("llama"))
    slow.set("slow 1")
    launcher = grid.start(*FAST, "model=slow", ignoring=signal.SIGHUP)
    wait_until(lambda: list((grid.folder / "results").glob(".sweeps/*/states/0.json")))
    launcher.send_signal(signal.SIGHUP)
    slow.mend()
    assert finish(launcher).returncode == 0


@pytest.mark.skipif(no_locks.FLOCK is None, reason="the filter knows x86_64 and aarch64 alone")
def test_a_sweep_where_the_file_system_knows_no_locks(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.prefix = [sys.executable, no_locks.__file__]
    slow = grid.add_faulty("slow", checkpoint("llama"))
    slow.set("slow 1")
    command = (*FAST, "model=slow", "dataset.num_samples=24", "decoding.batch_size='1'")
    first = grid.start(*command)
    wait_until(lambda: list((grid.folder / "results").glob(".sweeps/*/states/0.json")))
    second = grid.run(*command)
    assert second.returncode == 1
    assert "another command is at work on this sweep" in second.stderr
    slow.mend()
    assert finish(first).returncode == 0
    wait_until(lambda: not list(grid.sweep().glob(".*.lease")))


def test_options_of_a_launcher_are_heeded_without_m(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("sound", checkpoint("llama"))
    ended = grid.command(*FAST, "tracking=none", "model=sound")
    assert ended.returncode == 0
    assert "1 done" in ended.stdout
    assert len(grid.jobs()) == 1
    assert "1 cells: 1 done already" in grid.command(*FAST, "tracking=none", "model=sound").stderr


def test_ctrl_c_then_the_same_command(grid: Grid, checkpoint: Checkpoints, reference: Numbers) -> None:
    slow = grid.add_faulty("slow", checkpoint("llama"))
    slow.set("slow 1")
    command = (*FAST, "model=slow", "seed=0,1")
    launcher = grid.start(*command)
    wait_until(lambda: list((grid.folder / "results").glob(".sweeps/*/states/0.json")))
    launcher.send_signal(signal.SIGINT)
    ended = finish(launcher)
    assert ended.returncode == 130
    assert "cancelled" in ended.stdout
    assert "2 cancelled" in grid.run(*command, "action=status").stdout
    slow.mend()
    assert grid.run(*command).returncode == 0
    assert grid.numbers_by_draw() == reference


def test_what_cannot_work_is_listed_and_nothing_is_submitted(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("sound", checkpoint("llama"))
    refused = grid.run(*FAST, "model=sound,lama1b", "dataset.num_samples=4,0")
    assert refused.returncode == 2
    assert "model=lama1b is not known; did you mean 'llama1b'?" in refused.stderr
    assert "dataset.num_samples=0 asks for no example" in refused.stderr
    assert "3 of 4 cells cannot work" in refused.stderr
    assert "skip_invalid=true" in refused.stderr
    assert not list((grid.folder / "results").glob(".sweeps/*/manifest.json"))


def test_skip_invalid_runs_the_others(grid: Grid, checkpoint: Checkpoints) -> None:
    grid.add_model("sound", checkpoint("llama"))
    ended = grid.run(*FAST, "model=sound", "dataset.num_samples=4,0", "hydra.launcher.skip_invalid=true")
    assert ended.returncode == 2  # what is missing is the user's mistake alone
    assert "1 done, 1 invalid" in ended.stdout
    assert grid.states() == ["done", None]


def test_a_preset_is_a_grid_and_the_command_line_beats_it(grid: Grid, checkpoint: Checkpoints) -> None:
    for name in ("small", "large"):
        grid.add_model(name, checkpoint("llama"))
    planned = grid.look("experiment=ultra_large", "model=small,large", "dataset=facts", "action=plan")
    assert "small-nf4-facts-gnll" in planned
    assert "large-nf4-facts-gnll" in planned
    assert "2 of 2 work" in planned
    assert not list((grid.folder / "results").glob("*/result.json"))


@pytest.mark.parametrize("preset", ["sizes", "ultra_large"])
@pytest.mark.parametrize("profile", ["slurm_4x11gb", "slurm_2xh100"])
def test_presets_are_planned_for_the_example_clusters(grid: Grid, preset: str, profile: str) -> None:
    planned = grid.look(f"experiment={preset}", f"hydra/launcher={profile}", "action=plan")
    assert re.search(r"6 of 6 work|[1-5] of 6 work", planned)


def test_submitting_imports_no_torch_and_says_where_a_sweep_comes_from(
    grid: Grid, checkpoint: Checkpoints
) -> None:
    grid.add_model("sound", checkpoint("llama"))
    grid.environment = dict(grid.environment) | {"PYTHONPROFILEIMPORTTIME": "1"}
    detached = grid.run(*FAST, "model=sound", "seed=0", "hydra.launcher.detach=true")
    assert detached.returncode == 0
    imported = re.findall(r"\| +(\w+)$", detached.stderr, re.MULTILINE)
    assert "probegrid" in imported
    assert "transformers" in imported  # its tokenizers say what the cells are
    assert not {"torch", "mlflow"} & set(imported)  # submitting needs none of them
    manifest = json.loads((grid.sweep() / "manifest.json").read_text())
    assert manifest["argv"][0] == "probegrid"
    assert "torch" in manifest["versions"]
    assert manifest["cells"][0]["overrides"][-1] == "seed=0"
    wait_until(lambda: grid.states() == ["done"])
