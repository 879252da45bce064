"""A progress that a waiting launcher can read: what a cell counts, in its state file about once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from probegrid.progress import Progress

BEAT_S = 1.0


class Heartbeat(Progress):
    """Counts like `Progress` and reports (step, done, total, seconds left or None, tokens a second or None)."""

    def __init__(
        self,
        report: Callable[[str, int, int, float | None, float | None], None],
        has_read: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with nothing to count.

        Args:
            report: called about once a second.
            has_read: called whenever something was read here, and not by another job.
        """
        super().__init__()
        self._report, self._has_read = report, has_read
        self._step, self._step_done, self._step_total = "", 0, 0
        self._first, self._began, self._read = 0, time.monotonic(), 0
        self._reported = 0.0

    def start(self, name: str, *, total: int, done: int = 0) -> None:
        """Begin to count, and report it at once."""
        super().start(name, total=total, done=done)
        self._step, self._step_done, self._step_total = name, done, total
        self._first, self._began, self._read = done, time.monotonic(), 0
        self._beat()

    def advance(self, examples: int, *, tokens: int = 0) -> None:
        """Count more, and report it if the last report is old."""
        super().advance(examples, tokens=tokens)
        if tokens:
            self._has_read()
        self._step_done += examples
        self._read += tokens
        if time.monotonic() - self._reported > BEAT_S:
            self._beat()

    def _beat(self) -> None:
        self._reported = time.monotonic()
        self._report(self._step, self._step_done, self._step_total, self._left_s(), self._rate())

    def _rate(self) -> float | None:
        """Tokens a second since the step began."""
        seconds = time.monotonic() - self._began
        return self._read / seconds if self._read and seconds > 0 else None

    def _left_s(self) -> float | None:
        """What the step has left at the speed it had so far; what was there before it began has no speed."""
        counted = self._step_done - self._first
        if not counted:
            return None
        return (time.monotonic() - self._began) / counted * (self._step_total - self._step_done)
