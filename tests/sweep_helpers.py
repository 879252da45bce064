"""What the tests of sweeps share: models that misbehave on demand, a grid as a command, and what it left behind.

A faulty model is a real checkpoint with code of its own (``trust_remote_code``). Before each forward pass it reads
its fault file, so that a fault comes and goes while its cells keep their keys.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from forked import Forked

MODELING = """
import os
import signal
import threading
import time
from pathlib import Path

from transformers import LlamaForCausalLM


class Unpicklable(Exception):
    def __init__(self, *, lock):
        super().__init__("holds a lock")
        self.lock = lock


class Sick(Exception):  # none of those that say that a model cannot be read one way, but another
    pass


class FaultyLlama(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.model.register_forward_pre_hook(lambda *_: misbehave(Path(config.fault_file)))


def misbehave(file):
    fault = file.read_text() if file.exists() else ""
    if fault.startswith("slow"):
        time.sleep(float(fault.split()[1]))
        return
    if fault == "wait":
        while file.exists():
            time.sleep(0.1)
        return
    file.unlink(missing_ok=True)
    if fault == "raise":
        raise Sick("this cell fails")
    if fault == "unpicklable":
        raise Unpicklable(lock=threading.Lock())
    if fault == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
PATIENCE = float(os.environ.get("PROBEGRID_PATIENCE", "1"))
"""By what to multiply the seconds that something is waited for, on a machine that others use too."""
TIMINGS = ("_s", "_gb", "_gb_0")


@dataclass(frozen=True)
class FaultyModel:
    """A checkpoint that misbehaves as its fault file says."""

    name: str
    folder: Path
    fault_file: Path

    def set(self, fault: str) -> None:
        """``raise``, ``unpicklable``, ``segfault`` or ``kill``, once; ``slow SECONDS``, ``wait``: until mended."""
        self.fault_file.write_text(fault)

    def mend(self) -> None:
        """Behave."""
        self.fault_file.unlink(missing_ok=True)


@dataclass
class Grid:
    """A folder to run grids in, with groups of its own for ``--config-dir``."""

    folder: Path
    environment: Mapping[str, str]
    tracking: str = "none"
    prefix: Sequence[str] = ()
    """What starts the command."""
    anew: bool = False
    """Start it as a user does: its processes' own words and variables are looked at."""

    def __post_init__(self) -> None:
        self.groups = self.folder / "groups"
        self.groups.mkdir(parents=True, exist_ok=True)

    def add(self, group: str, name: str, content: Mapping[str, Any]) -> None:
        """Add a choice to a group."""
        file = self.groups / group / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(dict(content), sort_keys=False))

    def add_model(self, name: str, folder: Path, **resources: int) -> None:
        """Add a model that reads a checkpoint with its own code."""
        self.add(
            "model",
            name,
            {"path": str(folder), "dtype": "float32", "trust_remote_code": True, "resources": resources},
        )

    def add_faulty(self, name: str, checkpoint: Path, **resources: int) -> FaultyModel:
        """Add a model that misbehaves on demand."""
        folder, fault_file = self.folder / "checkpoints" / name, self.folder / "checkpoints" / f"{name}.fault"
        folder.mkdir(parents=True)
        for file in checkpoint.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "fault_file": str(fault_file),
            "auto_map": {"AutoModelForCausalLM": f"modeling_{name}.FaultyLlama"},
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / f"modeling_{name}.py").write_text(MODELING)
        self.add_model(name, folder, **resources)
        return FaultyModel(name, folder, fault_file)

    def start(self, *overrides: str, ignoring: signal.Signals | None = None) -> subprocess.Popen[str]:
        """Start ``probegrid -m`` and return at once; it may ignore a signal from the start, as under ``nohup``."""
        before = ignoring and signal.signal(ignoring, signal.SIG_IGN)
        try:
            return self._start("-m", *self._tracked(overrides))
        finally:
            if ignoring:
                signal.signal(ignoring, before)

    def start_in(self, terminal: int, *overrides: str) -> subprocess.Popen[bytes]:
        """Start ``probegrid -m`` in a terminal, by its descriptor."""
        program = [sys.executable, "-c", _IN_TERMINAL, str(Path(sys.executable).with_name("probegrid"))]
        words = ["--config-dir", str(self.groups), "-m", *self._tracked(overrides)]
        return subprocess.Popen(
            [*program, *words],
            cwd=self.folder,
            env=os.environ | dict(self.environment),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )

    def _tracked(self, overrides: Sequence[str]) -> list[str]:
        """The overrides with the grid's tracking, unless they say their own: a group is given once."""
        is_said = any(word.startswith("tracking=") for word in overrides)
        return [*overrides] if is_said else [f"tracking={self.tracking}", *overrides]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``probegrid`` without ``-m`` to its end."""
        return finish(self._start(*words))

    def look(self, *words: str) -> str:
        """What ``probegrid`` prints without ``-m``."""
        ended = self.command(*words)
        assert ended.returncode == 0
        return ended.stdout

    def _start(self, *words: str) -> subprocess.Popen[str]:
        program = Path(sys.executable).with_name("probegrid")
        return (subprocess.Popen if self.anew else Forked)(
            [*self.prefix, str(program), "--config-dir", str(self.groups), *words],
            cwd=self.folder,
            env=os.environ | dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *overrides: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run ``probegrid -m`` to its end; all it says goes to the test's output too."""
        return finish(self.start(*overrides), timeout_s)

    def sweep(self) -> Path:
        """The folder of the last sweep."""
        return max((self.folder / "results" / ".sweeps").glob("*/manifest.json"), key=os.path.getmtime).parent

    def has_started(self) -> bool:
        """Whether a sweep has submitted jobs."""
        return bool(list((self.folder / "results").glob(".sweeps/*/submissions/1.json")))

    def is_closed(self) -> bool:
        """Whether the last sweep has its summary."""
        return (self.sweep() / "summary.csv").exists()

    def summary(self) -> list[dict[str, str]]:
        """The lines of the last sweep's summary."""
        return list(csv.DictReader((self.sweep() / "summary.csv").read_text().splitlines()))

    def jobs(self) -> list[dict[str, Any]]:
        """Every job of the last sweep, in the order of their submissions."""
        files = sorted(self.sweep().glob("submissions/*.json"), key=lambda file: int(file.stem))
        return [job for file in files for job in json.loads(file.read_text())["jobs"]]

    def states(self) -> list[str | None]:
        """What the workers say of each cell of the last sweep, by number."""
        count = len(json.loads((self.sweep() / "manifest.json").read_text())["cells"])
        files = [self.sweep() / "states" / f"{cell}.json" for cell in range(count)]
        return [json.loads(file.read_text())["phase"] if file.exists() else None for file in files]

    def progress(self, cell: int) -> int:
        """Questions that a cell of the last sweep has read."""
        file = self.sweep() / "states" / f"{cell}.json"
        return int(json.loads(file.read_text())["done"]) if file.exists() else 0

    def worker(self, cell: int) -> int | None:
        """The process that has or had a cell of the last sweep."""
        if not self.has_started():
            return None
        file = self.sweep() / "states" / f"{cell}.json"
        return int(json.loads(file.read_text())["pid"]) if file.exists() else None

    def records(self) -> dict[str, dict[str, Any]]:
        """The recorded cells by key."""
        return {
            file.parent.name: json.loads(file.read_text())
            for file in (self.folder / "results").glob("*/result.json")
        }

    def numbers(self) -> dict[str, dict[str, str]]:
        """The metrics of every cell that is done, but for seconds and bytes, by key; not-a-number as text."""
        return {
            key: {
                name: repr(value) for name, value in record["metrics"].items() if not name.endswith(TIMINGS)
            }
            for key, record in self.records().items()
            if record["status"] == "done"
        }

    def numbers_by_draw(self) -> dict[tuple[int, int], dict[str, str]]:
        """The numbers of every cell that is done, by its questions and its seed, for models that are all the same."""
        found: dict[tuple[int, int], dict[str, str]] = {}
        for key, values in self.numbers().items():
            config = yaml.safe_load((self.folder / "results" / key / "config.yaml").read_text())
            draw = (config["dataset"]["num_samples"], config["seed"])
            assert found.setdefault(draw, values) == values
        return found


def finish(process: subprocess.Popen[str], timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Wait for a started command."""
    try:
        out, err = process.communicate(timeout=timeout_s * PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, err = process.communicate(timeout=60)
        raise AssertionError(f"not finished in {timeout_s} s:\n{out}\n{err}") from None
    print(out, err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(condition: Callable[[], object], timeout_s: float = 90) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def undisturbed(grid: Grid) -> Grid:
    """A folder of its own with the same groups, for a sweep on this machine."""
    local = Grid(grid.folder / "undisturbed", grid.environment)
    shutil.copytree(grid.groups, local.groups, dirs_exist_ok=True)
    return local


def own_grid(grid: Grid, checkpoint: Path, profile: Mapping[str, Any]) -> list[str]:
    """Add a cluster profile, a model and a dataset of the user's own; the words of a grid of two cells with them."""
    questions = grid.folder / "questions.jsonl"
    rows = [{"question": f"Where is town {number}?", "answers": ["north"]} for number in range(12)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    defaults = ["/schema/dataset/jsonl@_here_", "_self_"]
    grid.add("hydra/launcher", "my_cluster", profile)
    grid.add("model", "my_model", {"path": str(checkpoint), "dtype": "float32"})
    grid.add("dataset", "my_data", {"defaults": defaults, "path": str(questions), "num_samples": 4})
    folders = [f"{name}_dir={grid.folder / name}" for name in ("results", "store")]
    chosen = ["hydra/launcher=my_cluster", "model=my_model", "dataset=my_data,facts", "tracking=none"]
    short = ["dataset.num_samples=4", "prompt.num_few_shot=1", "decoding.max_new_tokens=4"]
    return ["--config-dir", str(grid.groups), "-m", *chosen, *short, *folders]


def sent_cells(grid: Grid) -> set[str]:
    """Keys of the cells that say they were sent to MLflow."""
    return {file.parent.name for file in (grid.folder / "results").glob("*/mlflow.json")}


def check_mlflow(grid: Grid, uri: str, *, failed: int = 0) -> dict[str, str]:
    """Hold MLflow to what is on disk: one parent with the sweep's files, each cell once below it with all it has.

    Args:
        grid: where the sweep is.
        uri: where it was sent.
        failed: how many of its cells failed.

    Returns:
        The run's id by the cell's key, and the parent's by ``sweep``.
    """
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("probegrid")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if run.data.tags.get("probegrid.kind") == "sweep")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    assert parent.info.status == ("FAILED" if failed else "FINISHED")
    assert [run.info.status for run in children].count("FAILED") == failed
    for name in ("manifest.json", "summary.csv"):
        copy = client.download_artifacts(parent.info.run_id, name)
        assert Path(copy).read_bytes() == (grid.sweep() / name).read_bytes()
    assert sorted(run.data.tags["probegrid.cell"] for run in children) == sorted(grid.records())
    assert len({run.info.run_name for run in children}) == len(children)
    for run in children:
        _check_cell(client, run, grid)
    return {"sweep": parent.info.run_id} | {
        run.data.tags["probegrid.cell"]: run.info.run_id for run in children
    }


def _check_cell(client: Any, run: Any, grid: Grid) -> None:
    """Hold a run to its cell's folder: state, metrics, choices, config, artifacts."""
    folder = grid.folder / "results" / run.data.tags["probegrid.cell"]
    record = json.loads((folder / "result.json").read_text())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert run.info.status == {"done": "FINISHED", "failed": "FAILED"}[record["status"]]
    assert run.data.tags["probegrid.sweep"] == grid.sweep().name
    assert run.info.run_name == record["name"]
    last = {name: pairs[-1][1] for name, pairs in record["steps"].items()}
    assert {name: repr(value) for name, value in run.data.metrics.items()} == {
        name: repr(float(value)) for name, value in (record["metrics"] | last).items()
    }
    assert record["choices"].items() <= run.data.params.items()
    assert run.data.params["dataset.num_samples"] == str(config["dataset"]["num_samples"])
    assert run.data.params["seed"] == str(config["seed"])
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    tables = {"examples.json"} if record["status"] == "done" else set()
    assert set(artifacts(client, run.info.run_id)) == files - {"mlflow.json"} | tables


def artifacts(client: Any, run_id: str, folder: str | None = None) -> list[str]:
    """Paths of all artifacts of a run."""
    found = client.list_artifacts(run_id, folder)
    below = [path for file in found if file.is_dir for path in artifacts(client, run_id, file.path)]
    return [file.path for file in found if not file.is_dir] + below
