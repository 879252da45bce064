"""A program: run a command, killed at random moments and started again, and once undisturbed in another folder.

``python killed_cells.py SEED KILLS FOLDER COMMAND``; the command is JSON, the words after ``probegrid``. It runs
undisturbed in ``FOLDER/whole``, and in ``FOLDER/killed<n>`` until it was killed so often; a run that ends before its
moment begins another such folder. Prints as JSON how many were killed, and the folders. Imports are made once and
children forked, so that a moment costs a second and not eight; nothing is computed before, for threads are not forked.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

HEAVY = (
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "mlflow.store.tracking.sqlalchemy_store",
    "matplotlib.figure",
    "pandas",
    "pyarrow.parquet",
    "sklearn.linear_model",
    "probegrid.cell.run",
    "probegrid.cell.answer_probe",
    "probegrid.cell.trained_probe",
    "probegrid.inference.engine",
    "probegrid.readings.session",
    "probegrid.report.report",
    "probegrid.sweep.launch",
    "probegrid.tracking.mlflow_sink",
)


def main() -> None:
    """Run, kill, and run on."""
    seed, kills, folder, command = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        Path(sys.argv[3]),
        json.loads(sys.argv[4]),
    )
    for module in HEAVY:
        importlib.import_module(module)
    generator = random.Random(seed)
    whole = fresh(folder, "whole")
    started = time.monotonic()
    assert run(whole, command, None) == 0, (whole / "log").read_text()
    longest_s = time.monotonic() - started
    killed, folders = 0, [fresh(folder, "killed0")]
    while killed < kills:
        status = run(folders[-1], command, generator.uniform(0, longest_s))
        if status is None:
            killed += 1
        else:
            assert status == 0, (folders[-1] / "log").read_text()
            folders.append(fresh(folder, f"killed{len(folders)}"))
    for each in folders:
        assert run(each, command, None) == 0, (each / "log").read_text()
    print(json.dumps({"killed": killed, "folders": [each.name for each in folders]}))


def fresh(folder: Path, name: str) -> Path:
    """A folder to run in, with what the command is to find there."""
    made = folder / name
    if (folder / "before").exists():
        shutil.copytree(folder / "before", made)
    else:
        made.mkdir()
    return made


def run(folder: Path, command: list[str], moment: float | None) -> int | None:
    """Run the command in a child; its exit status, None where it was killed at the moment (in seconds)."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.setsid()
        log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(status_of(command))
    if moment is not None:
        deadline = time.monotonic() + moment
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.killpg(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if status == -signal.SIGKILL else status


def status_of(command: list[str]) -> int:
    """Do as the command does; its exit status."""
    from probegrid.cli import main as probegrid

    sys.argv = ["probegrid", *command]
    try:
        probegrid()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:  # noqa: BLE001  # a traceback is what the test is to see
        import traceback

        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main()
