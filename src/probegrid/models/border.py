"""Tensors that cross from one device to another within a pass.

A plain copy between GPUs makes the source's stream wait for everything that is queued on the target's. Here copies run
on streams of their own, so that passes follow each other through the devices like parts through a line. Whoever records
a pass (for a CUDA graph) takes the crossings over.

Knows tensors and streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

Crossing = Callable[[Sequence[Tensor], torch.device], list[Tensor]]
"""From tensors that lie elsewhere to the same on a device."""

_taken_over: list[Crossing] = []
_WRITTEN = "_probegrid_written"


def cross(values: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The values on ``device``, in order with what is queued on both devices; the host waits for nothing."""
    if _taken_over:
        return _taken_over[-1](values, device)
    if device.type == "cuda" and all(value.is_cuda for value in values):
        return _between_gpus(values, device)
    return [to_device(value, device) for value in values]


def note_written(value: Tensor, when: torch.cuda.Event) -> None:
    """Let a tensor cross as soon as it is written: what is queued behind that on its GPU is not waited for.

    Args:
        value: nobody writes to it any more.
        when: of its GPU.
    """
    setattr(value, _WRITTEN, when)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on ``device``; the host waits for nothing where it comes from the CPU."""
    if value.device.type == "cpu" and device.type == "cuda":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


@contextmanager
def taken_over(by: Crossing) -> Iterator[None]:
    """Let ``by`` answer for every crossing within."""
    _taken_over.append(by)
    try:
        yield
    finally:
        _taken_over.pop()


def copy_between(source: Tensor, target: Tensor, written: torch.cuda.Event) -> None:
    """Copy to a tensor of another GPU that nothing reads any more; what is queued there from now on waits for it.

    Args:
        source: of one GPU.
        target: of another, of the same shape and dtype.
        written: when the source is; what the source's GPU does after it is not waited for.
    """
    leaving, arriving = _streams(source.device, target.device)
    leaving.wait_event(written)
    with torch.cuda.stream(leaving), torch.cuda.stream(arriving):
        target.copy_(source, non_blocking=True)
    torch.cuda.current_stream(target.device).wait_stream(arriving)


def _between_gpus(values: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    source = values[0].device
    leaving, arriving = _streams(source, device)
    _await_written(values, leaving, torch.cuda.current_stream(source))
    with torch.cuda.stream(leaving), torch.cuda.stream(arriving):
        moved = [value.to(device, non_blocking=True) for value in values]
    target = torch.cuda.current_stream(device)
    target.wait_stream(arriving)
    for value, copied in zip(values, moved, strict=True):
        value.record_stream(leaving)
        copied.record_stream(target)
    return moved


def _await_written(
    values: Sequence[Tensor], leaving: torch.cuda.Stream, computing: torch.cuda.Stream
) -> None:
    """Let a stream wait until values are written: by all that is queued behind them too, where no one noted when."""
    if all(hasattr(value, _WRITTEN) for value in values):
        for value in values:
            leaving.wait_event(getattr(value, _WRITTEN))
    else:
        leaving.wait_stream(computing)


@cache
def _streams(source: torch.device, target: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """The streams of copies from one GPU to another, on each of them."""
    return torch.cuda.Stream(source), torch.cuda.Stream(target)
