"""Signals that end a launcher: Ctrl-C, SIGTERM, a closed terminal; and what must not be cut in half by them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "a closed terminal"}


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first of the signals raise ``KeyboardInterrupt(signal)``; those after it change nothing any more.

    A signal that was ignored from the start (``nohup``) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can Python take signals
        yield
        return
    on_terminal = [stream for stream in (1, 2) if os.isatty(stream)]
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if received:
            return
        received.append(number)
        if number == signal.SIGHUP:
            _write_nowhere(on_terminal)
        raise KeyboardInterrupt(signal.Signals(number))

    taken = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put the signals off until the block is through; programs that it starts are spared them too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    for number in before:  # a blocked signal may still reach another thread, and through it Python
        signal.signal(number, lambda number, _frame: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # started programs inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # the handlers of those that wait run now
        for number, handler in before.items():
            signal.signal(number, handler)
        for missed in received[:1]:
            signal.raise_signal(missed)


def name_of(interrupt: KeyboardInterrupt) -> str:
    """What ended the launcher, in a user's words."""
    return NAMES[interrupt.args[0]] if interrupt.args else NAMES[signal.SIGINT]


def quietly(speak: Callable[[], None]) -> None:
    """Say something at an end that must not fail by it: who reads (``| tee log``) may have ended before."""
    try:
        speak()
        sys.stdout.flush()
    except OSError:
        _write_nowhere([1, 2])


def _write_nowhere(streams: list[int]) -> None:
    """Point streams that nobody reads any more to nowhere: a write to them would raise in the midst of the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)
