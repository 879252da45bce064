"""A progress that a waiting launcher can read: what a cell counts, in its state file about once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from probegrid.progress import Progress

BEAT_S = 1.0


class Heartbeat(Progress):
    """Counts like `Progress` and reports (step, done, total)."""

    def __init__(self, report: Callable[[str, int, int], None]) -> None:
        super().__init__()
        self._report = report
        self._step, self._step_done, self._step_total = "", 0, 0
        self._reported = 0.0

    def start(self, name: str, *, total: int, done: int = 0) -> None:
        """Begin to count, and report it at once."""
        super().start(name, total=total, done=done)
        self._step, self._step_done, self._step_total = name, done, total
        self._beat()

    def advance(self, examples: int, *, tokens: int = 0) -> None:
        """Count more, and report it if the last report is old."""
        super().advance(examples, tokens=tokens)
        self._step_done += examples
        if time.monotonic() - self._reported > BEAT_S:
            self._beat()

    def _beat(self) -> None:
        self._reported = time.monotonic()
        self._report(self._step, self._step_done, self._step_total)
