"""Processes beside this one, each with a copy of the model on devices of its own, that read what this one reads.

They share its readings by claims in the store (`readings.claims`), so that one that dies takes nothing along. Knows
how they are started, told what to read, asked what they took, and ended; `cell.replica` is what runs in them.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from probegrid.schema import CellSpec
from probegrid.tracking.redaction import redact

_TERM_WAIT_S = 5.0
_LAST_LINES = 3
_MOST_DEATHS = 2
"""Of a replica, after which it is not started anew: whatever kills it will again."""
TOGETHER = ("load_s", "peak_ram_gb", "readers")
"""Metrics of a process that are added up over all who share a reading; of those of a GPU the most counts."""


class Replicas:
    """The processes of a pack beside its own; started early, for imports take seconds, they serve every cell after."""

    def __init__(self, specs: Sequence[CellSpec]) -> None:
        """Start nothing yet.

        Args:
            specs: the pack's cells.
        """
        self._content = pickle.dumps(list(specs))
        self._running: list[_Replica] = []
        self._groups: list[list[str]] = []
        self._deaths: Counter[int] = Counter()
        self._said: list[str] = []

    def tell(self, order: Mapping[str, object], groups: Sequence[Sequence[str]]) -> None:
        """Let them read a cell along, or get ready for it; those that lack are started, those that died anew.

        Args:
            order: what `replica.Order` takes.
            groups: for each replica the GPUs that are its own, by names that ``CUDA_VISIBLE_DEVICES`` takes; empty
                where it computes on the CPU.
        """
        wanted = [list(group) for group in groups]
        if wanted != self._groups:
            self.close()
            self._groups = wanted
        alive = {replica.number: replica for replica in self._running if replica.is_alive}
        for replica in self._running:
            self._bury(replica)
        self._running = [
            alive.get(number) or _Replica(number, group, self._content, len(wanted) + 1)
            for number, group in enumerate(wanted, start=1)
            if self._deaths[number] < _MOST_DEATHS
        ]
        for replica in self._running:
            replica.tell(order)

    def metrics(self, cell: int) -> dict[int, dict[str, float]]:
        """What each replica that read something of a cell has taken so far, by its place in the groups."""
        return {
            replica.number - 1: replica.metrics[cell] for replica in self._running if cell in replica.metrics
        }

    def ended(self) -> list[str]:
        """A sentence on each replica that died since it was asked last."""
        for replica in self._running:
            self._bury(replica)
        said, self._said = self._said, []
        return said

    def _bury(self, replica: _Replica) -> None:
        if death := replica.death():
            self._deaths[replica.number] += 1
            self._said.append(death)

    def close(self) -> None:
        """End all of them: whatever they are at is done, or another's now."""
        for replica in self._running:
            replica.end()
        self._running, self._groups = [], []


def together(own: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The metrics of all processes that shared a reading.

    Args:
        own: of this process.
        others: of each other, its GPUs numbered as they are here.
    """
    found = dict(own)
    for metrics in others:
        for name, value in metrics.items():
            before = found.get(name, 0.0)
            found[name] = before + value if name in TOGETHER else max(before, value)
    return found


class _Replica:
    """One process."""

    def __init__(self, number: int, gpus: Sequence[str], content: bytes, of: int) -> None:
        self.number = number
        self.metrics: dict[int, dict[str, float]] = {}
        self._said_death = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        environment = dict(os.environ)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        else:  # the cores are shared
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // of)))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "probegrid.cell.replica"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        self._send(content)
        self._listener = threading.Thread(target=self._listen, name=f"replica {number}", daemon=True)
        self._listener.start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def tell(self, order: Mapping[str, object]) -> None:
        self._send(json.dumps(order).encode() + b"\n")

    def death(self) -> str:
        if self._said_death or self.is_alive:
            return ""
        self._said_death = True
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
        why = redact(" / ".join(lines)) or f"exit status {self._process.returncode}"
        return f"replica {self.number} ended, the others go on without it: {why}"

    def end(self) -> None:
        with suppress(OSError):
            self._process.terminate()
        try:
            self._process.wait(_TERM_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it died; `death` says why
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):
                said = json.loads(line)
                self.metrics[said["cell"]] = said["metrics"]


def gpu_groups(used: Sequence[int], count: int, visible: int) -> list[list[int]]:
    """The GPUs of each replica but the first: as many as that one uses, of those that it does not, in order.

    Args:
        used: indices of the GPUs that the first replica uses; none: all compute on the CPU.
        count: replicas, the first included.
        visible: GPUs that are there.
    """
    if not used:
        return [[] for _ in range(count - 1)]
    unused, each = [gpu for gpu in range(visible) if gpu not in used], len(used)
    return [unused[start : start + each] for start in range(0, each * (count - 1), each)]


def here(metrics: Mapping[str, float], gpus: Sequence[int]) -> dict[str, float]:
    """A replica's metrics, its GPUs numbered as this process sees them."""
    names = {f"peak_gpu_gb_{own}": f"peak_gpu_gb_{index}" for own, index in enumerate(gpus)}
    return {names.get(name, name): value for name, value in metrics.items()}
