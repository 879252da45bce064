"""A program: send recorded cells to MLflow, each killed at a random moment, then sent again by another process.

``python send_and_kill.py SEED URI FOLDER...``; ``{number}`` in the URI is the cell's number. Prints as JSON what each
second process raised (null for nothing), and how many of the first ones were still at work when they were killed.
Imports are made once and children forked, so that a moment costs a second and not five.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow.store.tracking.rest_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_sink import send


def main() -> None:
    """Kill and send again, cell by cell."""
    seed, uri, *folders = sys.argv[1:]
    generator = random.Random(int(seed))
    first, *others = map(Path, folders)
    started = time.monotonic()
    send_in_child(first, uri.format(number=0))
    longest_s = time.monotonic() - started
    raised: list[str | None] = []
    killed = 0
    for number, folder in enumerate(others, start=1):
        child = start(lambda folder=folder, number=number: send(folder, tracking(uri, number)))
        time.sleep(generator.uniform(0, longest_s))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        raised.append(send_in_child(folder, uri.format(number=number)))
    print(json.dumps({"raised": raised, "killed": killed}))


def tracking(uri: str, number: int) -> TrackingConfig:
    """Where cell ``number`` goes."""
    return TrackingConfig(uri=uri.format(number=number))


def send_in_child(folder: Path, uri: str) -> str | None:
    """Send a cell in a process of its own; return what it raised."""
    reading, writing = os.pipe()

    def send_and_tell() -> None:
        try:
            send(folder, TrackingConfig(uri=uri))
        except Exception as error:  # noqa: BLE001  # told to whoever asked
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:4000])

    child = start(send_and_tell)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told or None


def start(call: Callable[[], object]) -> int:
    """Fork a child that makes a call and ends."""
    child = os.fork()
    if child == 0:
        call()
        os._exit(0)
    return child


if __name__ == "__main__":
    main()
