"""Blocks that wait in CPU memory as they are computed with (packed, if quantized) and are copied to a GPU in turn.

All tensors of a block lie in one flat buffer of page-locked memory, so that one copy brings all of them. Two
buffers of the GPU alternate: while the model computes with one, the next block is copied into the other on a
stream of its own. The order of the blocks wraps around: the last blocks of a pass bring the first of the next.

Without CUDA the same code runs with the CPU as the device: plain memory, and copies at once.

Knows tensors and streams.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probegrid.models.quantization import constants_of
from probegrid.planning.placement import BUFFERS

_ALIGNMENT = 256
"""Bytes; what CUDA's own allocations are aligned to, so that kernels read as fast as from them."""
_FOR_EVERY_GPU = 1
"""``cudaHostRegisterPortable``."""
_copy_streams: dict[torch.device, torch.cuda.Stream] = {}
"""One for each GPU, shared by all conveyors."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of a block: where it is held, and its place in the flat buffer."""

    holders: tuple[tuple[Any, str], ...]
    """Objects and attributes that hold it; more than one where bitsandbytes keeps it twice."""
    start: int
    nbytes: int
    dtype: torch.dtype
    shape: torch.Size

    def of(self, buffer: Tensor) -> Tensor:
        """The view of a flat uint8 buffer that is this tensor."""
        return buffer[self.start : self.start + self.nbytes].view(self.dtype).view(self.shape)

    def put(self, value: Tensor) -> None:
        """Let every holder hold ``value``."""
        for holder, attribute in self.holders:
            setattr(holder, attribute, value)


class ParkedBlock:
    """A block whose tensors wait in one flat buffer of CPU memory."""

    def __init__(self, block: nn.Module) -> None:
        """Move every tensor of the block, quantization constants included, to its place in the buffer.

        Args:
            block: its tensors may lie anywhere; afterwards they are views into the buffer.
        """
        self._tensors = _layout(block)
        self.nbytes = _end(self._tensors[-1])
        """Bytes of the buffer."""
        self.buffer = page_locked(self.nbytes)
        """uint8 [nbytes]; page-locked where there is CUDA."""
        for tensor, view in zip(self._tensors, self.views(self.buffer), strict=True):
            holder, attribute = tensor.holders[0]
            view.copy_(getattr(holder, attribute))
            tensor.put(view)
        self._parked = self.views(self.buffer)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The block's tensors in a flat uint8 buffer of at least ``nbytes``."""
        return [tensor.of(buffer) for tensor in self._tensors]

    def use(self, views: Sequence[Tensor]) -> None:
        """Let the block compute with these tensors, of ``views``."""
        for tensor, view in zip(self._tensors, views, strict=True):
            tensor.put(view)

    def park(self) -> None:
        """Let the block's tensors be those in CPU memory again."""
        self.use(self._parked)


class Conveyor:
    """Brings the parked blocks of one GPU into its two buffers, ahead of their turn.

    A block's turn begins with ``acquire`` and ends with ``release``, of each pass that shares it. Turns are expected
    in the order of the blocks, again and again; any other order is served too, without a copy ahead.
    """

    def __init__(self, blocks: Sequence[ParkedBlock], device: torch.device) -> None:
        """Allocate the buffers; the first blocks are copied when the first turn begins.

        Args:
            blocks: in the order of their turns.
            device: the device that computes them.
        """
        self._blocks = list(blocks)
        size = max(block.nbytes for block in blocks)
        self.buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(BUFFERS)]
        self._views = [[block.views(buffer) for buffer in self.buffers] for block in blocks]
        self._held: list[int | None] = [None] * BUFFERS
        self._copies = _Copies(device, self.buffers)
        self._turn: int | None = None
        self._passes, self._served = 1, 0
        self.copied_bytes = 0
        """Bytes brought so far."""

    def serve(self, passes: int) -> None:
        """Let so many passes share each turn from now on: each begins and ends it, one after another."""
        self._passes, self._served = passes, 0

    def acquire(self, index: int) -> None:
        """Begin the turn of block ``index``: its tensors are views into a buffer, in place when they are read.

        The passes that share the turn compute on one stream, so that the first waits for all.
        """
        if self._turn is None or self._turn % len(self._blocks) != index:
            self._copies.after_all_computing()
            self._turn, self._served = index, 0
            self._bring(index)
            self._bring(index + 1)
        if self._served == 0:
            slot = self._turn % BUFFERS
            self._copies.await_copy(slot)
            self._blocks[index].use(self._views[index][slot])

    def release(self, index: int) -> None:
        """End the turn of block ``index``: its buffer may be overwritten once what was launched is computed."""
        assert self._turn is not None
        self._served += 1
        if self._served < self._passes:
            return
        self._served = 0
        self._blocks[index].park()
        self._copies.computing_ends(self._turn % BUFFERS)
        self._turn += 1
        self._bring(self._turn + 1)

    def _bring(self, turn: int) -> None:
        """Copy the block of a turn into that turn's buffer, unless it lies there already."""
        slot, index = turn % BUFFERS, turn % len(self._blocks)
        if self._held[slot] == index:
            return
        block = self._blocks[index]
        self._copies.copy(slot, self.buffers[slot][: block.nbytes], block.buffer)
        self._held[slot] = index
        self.copied_bytes += block.nbytes


class _Copies:
    """Copies on a stream of their own, ordered by events against the computing; plain copies without CUDA."""

    def __init__(self, device: torch.device, buffers: Sequence[Tensor]) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        if self._is_cuda:
            self._stream = _copy_streams.setdefault(device, torch.cuda.Stream(device))
            self._copied = [torch.cuda.Event() for _ in range(BUFFERS)]
            self._computed = [torch.cuda.Event() for _ in range(BUFFERS)]
            for buffer in buffers:  # once freed, not to be used again before the last copy into it is done
                buffer.record_stream(self._stream)

    def copy(self, slot: int, target: Tensor, source: Tensor) -> None:
        """Copy once nothing computes with the slot any more."""
        if not self._is_cuda:
            target.copy_(source)
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._computed[slot])
            target.copy_(source, non_blocking=True)
            self._copied[slot].record(self._stream)

    def await_copy(self, slot: int) -> None:
        """Let the computing that follows wait for the slot's copy."""
        if self._is_cuda:
            torch.cuda.current_stream(self._device).wait_event(self._copied[slot])

    def computing_ends(self, slot: int) -> None:
        """Note that what was launched so far is the last to read the slot."""
        if self._is_cuda:
            self._computed[slot].record(torch.cuda.current_stream(self._device))

    def after_all_computing(self) -> None:
        """Let the copies that follow wait for everything launched so far."""
        if self._is_cuda:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))


def page_locked(nbytes: int) -> Tensor:
    """A uint8 tensor [nbytes] in memory that a GPU copies from at full speed; plain memory without CUDA.

    The memory is the process's own, in huge pages where the system has them, and registered with CUDA: quicker to
    lock than small pages, and exactly as large as asked. Where the system registers none, it is torch's, which
    rounds up to a power of two.
    """
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    buffer = torch.frombuffer(memory, dtype=torch.uint8, count=nbytes)
    if not torch.cuda.is_available():
        return buffer
    with contextlib.suppress(AttributeError, OSError):  # a hint, which not every system takes
        memory.madvise(mmap.MADV_HUGEPAGE)
    buffer.zero_()  # by all cores, so that locking finds the pages there
    runtime: Any = torch.cuda.cudart()
    if int(runtime.cudaHostRegister(buffer.data_ptr(), nbytes, _FOR_EVERY_GPU)) != 0:
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # takes the error that the refusal left behind
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    weakref.finalize(memory, _unlock, buffer.data_ptr()).atexit = False
    return buffer


def _unlock(pointer: int) -> None:
    """Give page-locked memory back, once no copy from it is under way."""
    for stream in _copy_streams.values():
        stream.synchronize()
    runtime: Any = torch.cuda.cudart()
    runtime.cudaHostUnregister(pointer)


def _layout(block: nn.Module) -> list[_Tensor]:
    """Every tensor of a block once, however many objects hold it, one behind the other."""
    holders: dict[int, list[tuple[Any, str]]] = {}
    tensors: dict[int, Tensor] = {}
    named = [(tensor, "data") for tensor in (*block.parameters(), *block.buffers())]
    for holder, attribute in (*named, *constants_of(block)):
        tensor: Tensor = getattr(holder, attribute)
        if tensor.numel() == 0:  # all of them are at one address
            continue
        assert tensor.is_contiguous()
        tensors.setdefault(tensor.data_ptr(), tensor)
        holders.setdefault(tensor.data_ptr(), []).append((holder, attribute))
    layout: list[_Tensor] = []
    for pointer, tensor in tensors.items():
        start = math.ceil(_end(layout[-1]) / _ALIGNMENT) * _ALIGNMENT if layout else 0
        layout.append(_Tensor(tuple(holders[pointer]), start, tensor.nbytes, tensor.dtype, tensor.shape))
    return layout


def _end(tensor: _Tensor) -> int:
    return tensor.start + tensor.nbytes
