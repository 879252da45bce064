"""Forward passes that go through a model's blocks abreast: all of them take a block before any takes the next.

Where blocks lie on devices in turn, all devices compute so, each with another pass, and a block that is streamed is
copied once for all passes. Knows the blocks of a model, and threads of which one runs at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from probegrid.inference.linear import fast_linear
from probegrid.models.blocks import computing_devices, decoder_blocks
from probegrid.models.dispatch import shared_by

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

_mine: ContextVar[_Turn] = ContextVar("the turn of a pass")


def abreast(model: PreTrainedModel, passes: Sequence[Callable[[], T]]) -> list[T]:
    """Take some passes through a model side by side.

    Each runs in a thread, which waits at the end of each block until the others are there: their code runs in the order
    of the passes, block by block, so that a pass finds what an earlier one left at a block.

    Args:
        model: dispatched, see ``models.dispatch``.
        passes: each calls the model once, or none does.

    Returns:
        What the passes return.

    Raises:
        BaseException: what the first pass raised that failed; the others end at their next block.
    """
    if len(passes) == 1:
        return [passes[0]()]
    front = _Front(len(passes), ahead=len(set(computing_devices(model))))
    with (
        fast_linear(model),
        shared_by(model, len(passes)),
        _stopping_at_blocks(model),
        ThreadPoolExecutor(len(passes)) as threads,
    ):
        streams = _current_streams()
        futures = [
            threads.submit(copy_context().run, front.take, place, each, streams)
            for place, each in enumerate(passes)
        ]
        try:
            front.begin()
            for future in futures:
                future.exception()
        except BaseException:  # an interruption
            front.fail()
            raise
    failed = [
        error for future in futures if (error := future.exception()) and not isinstance(error, _Stopped)
    ]
    if failed:
        raise failed[0]
    return [future.result() for future in futures]


class _Stopped(Exception):
    """Another pass failed."""


class _Front:
    """Passes of which one runs at a time, in turn."""

    def __init__(self, passes: int, ahead: int) -> None:
        self._signals = [threading.Semaphore(0) for _ in range(passes)]
        self._running = list(range(passes))
        self._failed = False
        self._ahead = ahead

    def begin(self) -> None:
        """Let the first pass run."""
        self._signals[0].release()

    def take(self, place: int, call: Callable[[], T], streams: Sequence[torch.cuda.Stream]) -> T:
        """Make a pass, in a thread of its own, as soon as it is its turn."""
        try:
            self._wait(place)
            _mine.set(_Turn(self, place, self._ahead))
            for stream in streams:
                torch.cuda.set_stream(stream)
            return call()
        except BaseException:
            self.fail()
            raise
        finally:
            following = self._after(place)
            self._running.remove(place)
            if self._running:
                self._signals[following].release()

    def fail(self) -> None:
        """Let every pass end at its next block."""
        self._failed = True

    def give_way(self, place: int) -> None:
        """Let the other passes run until it is this one's turn again."""
        following = self._after(place)
        if following != place:
            self._signals[following].release()
            self._wait(place)

    def _wait(self, place: int) -> None:
        self._signals[place].acquire()
        if self._failed:
            raise _Stopped

    def _after(self, place: int) -> int:
        return next((other for other in self._running if other > place), self._running[0])


class _Turn:
    """A pass among others, and what of it the devices have not done yet."""

    def __init__(self, front: _Front, place: int, ahead: int) -> None:
        self._front, self._place, self._ahead = front, place, ahead
        self._done: deque[torch.cuda.Event] = deque()

    def ends_block(self, device: torch.device) -> None:
        """Give way, having queued no more than a round of the devices: what is under way there holds memory."""
        if device.type == "cuda":
            self._done.append(torch.cuda.current_stream(device).record_event())
            if len(self._done) > self._ahead:
                self._done.popleft().synchronize()
        self._front.give_way(self._place)


@contextmanager
def _stopping_at_blocks(model: PreTrainedModel) -> Iterator[None]:
    """Let every pass give way at the end of each block."""

    def ends(device: torch.device) -> Any:
        return lambda block, arguments, output: _mine.get().ends_block(device)

    blocks = zip(decoder_blocks(model), computing_devices(model), strict=True)
    hooks = [block.register_forward_hook(ends(device)) for block, device in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _current_streams() -> list[torch.cuda.Stream]:
    """Of every device, the current one's last: a thread begins with others."""
    if not torch.cuda.is_initialized():
        return []
    current = torch.cuda.current_device()
    devices = sorted(range(torch.cuda.device_count()), key=lambda device: device == current)
    return [torch.cuda.current_stream(device) for device in devices]
