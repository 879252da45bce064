"""Replicas: processes that read a cell along, on the CPU here; a killed one loses and doubles nothing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import psutil
import pyarrow.parquet as pq
import pytest
from forked import Forked
from rich.console import Console
from sweep_helpers import wait_until

from probegrid.cell.pack import Pack
from probegrid.cell.replicas import gpu_groups, here, together
from probegrid.cell.run import Result, run_cell
from probegrid.compose import compose_cell
from probegrid.progress import Progress

SMALL = ("dataset.num_samples=40", "prompt.num_few_shot=1", "decoding.max_new_tokens=6", "tracking=none")
TIMINGS = ("_s", "_gb")
Run = Callable[..., tuple[list[Result], str]]


@pytest.fixture
def run(workdir: Path, random_model: tuple[str, ...]) -> Run:
    """Run a pack of cells with the same words besides; what it says."""

    def run_pack(*cells: tuple[str, ...], words: tuple[str, ...] = ()) -> tuple[list[Result], str]:
        heard = io.StringIO()
        specs = [compose_cell([*random_model, *SMALL, *words, *cell]) for cell in cells]
        with Progress(Console(file=heard, width=1000)) as progress, Pack(specs) as pack:
            return [run_cell(spec, pack=pack, progress=progress) for spec in specs], heard.getvalue()

    return run_pack


def numbers(result: Result) -> dict[str, str]:
    metrics = result.metrics.items()
    return {name: repr(value) for name, value in metrics if not name.endswith(TIMINGS)}


def replicas() -> list[psutil.Process]:
    """The replicas that live of this process."""
    found = []
    for child in psutil.Process().children():
        try:
            if "probegrid.cell.replica" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def rows_of(store: Path) -> Counter[tuple[str, str, int]]:
    """How often each answer is there, of the parts as they are."""
    return Counter(
        (file.parent.name, row["prompt"], row["sample"])
        for file in store.glob("answers/*/part-*.parquet")
        for row in pq.read_table(file).to_pylist()
    )


@pytest.fixture
def before_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let this process wait before its first batch, which it holds, until something is so."""
    from probegrid.inference.engine import Engine

    answer = Engine.answer

    def wait_for(condition: Callable[[], object]) -> None:
        waiting = [condition]

        def patiently(self: Engine, *given: Any) -> Any:
            if waiting:
                wait_until(waiting.pop())
            return answer(self, *given)

        monkeypatch.setattr(Engine, "answer", patiently)

    return wait_for


@pytest.mark.slow
def test_a_replica_reads_along_and_the_numbers_are_those_of_one(
    run: Run,
    workdir: Path,
    before_first: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[Forked] = []
    monkeypatch.setattr(
        subprocess, "Popen", lambda *words, **how: started.append(Forked(*words, **how)) or started[-1]
    )
    both = (("probe=gnll",), ("probe=p_true", "probe.num_few_shot=2", "decoding.num_generations=3"))
    alone, _ = run(*both, words=("store_dir=one", "results_dir=one_results", "decoding.batch_size=4"))
    before_first(lambda: len(list((workdir / "two").glob("answers/*/part-*"))) >= 3)
    words = ("store_dir=two", "results_dir=two_results", "decoding.batch_size=4", "device_map.replicas=2")
    shared, said = run(*both, words=words)
    assert [numbers(result) for result in shared] == [numbers(result) for result in alone]
    assert [result.key for result in shared] == [result.key for result in alone]
    assert "2 copies as above share the reading" in said
    assert shared[0].metrics["load_s"] > 0
    assert "each of 2" in said
    assert set(rows_of(workdir / "two").values()) == {1}
    record = json.loads((shared[0].folder / "result.json").read_text())
    assert (record["readers"], record["plan"]["replicas"]) == (2, 2)
    (replica,) = (one for one in started if "probegrid.cell.replica" in one.args)
    assert replica.poll() is not None


@pytest.mark.slow
def test_a_replica_that_is_killed_loses_and_doubles_nothing(
    run: Run, workdir: Path, before_first: Callable[[Callable[[], object]], None]
) -> None:
    (alone,), _ = run((), words=("store_dir=one", "results_dir=one_results", "decoding.batch_size=4"))

    def kill_one_at_work() -> bool:
        claimed = [_text(file) for file in (workdir / "two").glob("answers/*/.*.claim")]
        at_work = [one for one in replicas() if any(f'"pid": {one.pid},' in text for text in claimed)]
        for replica in at_work:
            replica.kill()
        return bool(at_work)

    before_first(kill_one_at_work)
    words = ("store_dir=two", "results_dir=two_results", "decoding.batch_size=4", "device_map.replicas=2")
    (shared,), said = run((), words=words)
    assert numbers(shared) == numbers(alone)
    assert set(rows_of(workdir / "two").values()) == {1}
    assert "replica 1 ended, the others go on without it" in said
    assert not list((workdir / "two").glob("answers/*/.*"))


@pytest.mark.slow
def test_what_is_killed_with_its_replicas_goes_on(workdir: Path, random_model: tuple[str, ...]) -> None:
    words = [
        *random_model,
        *SMALL,
        "decoding.batch_size=1",
        "dataset.num_samples=60",
        "device_map.replicas=2",
    ]
    command = [sys.executable, "-m", "probegrid", *words]
    first = Forked(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list((workdir / "store").glob("answers/*/part-*"))) >= 10)
    started = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    wait_until(lambda: not any(child.is_running() for child in started))  # they end with whoever started them
    before = sum(rows_of(workdir / "store").values())
    assert 10 <= before < 60
    again = forked.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    rows = rows_of(workdir / "store")
    assert (len(rows), set(rows.values())) == (60, {1})
    assert "in earlier runs" in again.stderr


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.slow
def test_where_nothing_is_missing_no_copy_reads(run: Run) -> None:
    run((), words=("results_dir=one_results",))
    (again,), said = run((), words=("results_dir=two_results", "device_map.replicas=2"))
    assert json.loads((again.folder / "result.json").read_text())["readers"] == 1
    assert "in earlier runs" in said


def test_each_replica_has_gpus_of_its_own() -> None:
    assert gpu_groups((), 3, 0) == [[], []]
    assert gpu_groups((0,), 3, 4) == [[1], [2]]
    assert gpu_groups((0, 1), 2, 4) == [[2, 3]]
    assert gpu_groups((1,), 2, 2) == [[0]]


def test_what_all_took_together() -> None:
    own = {"load_s": 2.0, "peak_ram_gb": 1.0, "peak_gpu_gb_0": 17.0, "peak_gpu_gb_1": 0.0}
    other = here({"load_s": 3.0, "peak_ram_gb": 1.5, "peak_gpu_gb_0": 16.0}, [1])
    assert together(own, [other]) == {
        "load_s": 5.0,
        "peak_ram_gb": 2.5,
        "peak_gpu_gb_0": 17.0,
        "peak_gpu_gb_1": 16.0,
    }
