"""What a person sees while a cell runs: a bar on a terminal or in a notebook, a line now and then in a log.

Knows numbers and a stream.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

LOG_EVERY_S = 30.0
"""Seconds between two lines where there is no terminal."""


def say(sentence: str) -> None:
    """Print a line to stderr at once."""
    print(sentence, file=sys.stderr, flush=True)


class Progress:
    """Counts examples and tokens; use as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._notebook_bar: Any = None
        self._name = self._usage = ""
        self._total = self._done = self._tokens = 0
        self._started = self._logged = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def say(self, sentence: str) -> None:
        """Print a line, above the bar where there is one."""
        self._console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    def start(self, name: str, *, total: int, done: int = 0) -> None:
        """Begin to count ``name``, of which ``done`` of ``total`` are there already."""
        self._close()
        self._name, self._total, self._done, self._tokens = name, total, done, 0
        self._started = self._logged = time.perf_counter()
        if self._console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[usage]}"),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(name, total=total, completed=done, rate="", usage=self._usage)
        elif in_notebook():
            self._notebook_bar = _notebook_bar(name, total, done)

    def advance(self, examples: int, *, tokens: int = 0) -> None:
        """Count more examples as done, with the tokens they took."""
        self._done += examples
        self._tokens += tokens
        now = time.perf_counter()
        rate = f"{self._tokens / (now - self._started):.0f} tokens/s" if self._tokens else ""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, rate=rate)
        elif self._notebook_bar is not None:
            self._notebook_bar.set_postfix_str(rate, refresh=False)
            self._notebook_bar.update(examples)
        elif now - self._logged > LOG_EVERY_S or self._done == self._total:
            self._logged = now
            line = f"{self._name}: {self._done}/{self._total} {rate} {self._usage}"
            print(line.rstrip(), file=sys.stderr, flush=True)

    def show_usage(self, text: str) -> None:
        """Show how busy the machine is, beside the bar or at the end of the next line; called from any thread."""
        self._usage = text
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, usage=text)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        if self._notebook_bar is not None:
            self._notebook_bar.close()
            self._notebook_bar = None


def _notebook_bar(name: str, total: int, done: int) -> Any:
    """A widget where the notebook has widgets, else a line of text that is written over."""
    from tqdm import notebook, std  # type: ignore[import-untyped]

    bar = std.tqdm if importlib.util.find_spec("ipywidgets") is None else notebook.tqdm
    return bar(desc=name, total=total, initial=done)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which is no terminal and yet shows bars."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
