"""Forward passes that go through a model's blocks abreast, each a block behind the one before it.

Where blocks lie on devices in turn, all devices compute so, each with another pass, and a block that is streamed is
copied once for all passes. Knows the blocks of a model and its placement, and greenlets: stacks of one thread that take
turns. Threads would take their turns slower, since each wakes on a core of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from probegrid.inference.linear import fast_linear
from probegrid.models.blocks import computing_devices, decoder_blocks
from probegrid.models.border import note_written
from probegrid.models.dispatch import placement_of, shared_by
from probegrid.planning.placement import Device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


def abreast(model: PreTrainedModel, passes: Sequence[Callable[[], T]]) -> list[T]:
    """Take some passes through a model side by side.

    Each gives way at the end of each block. A pass takes a block in the round after the one before it took it, and what
    leaves a device waits for nothing that is queued there behind it. So a pass finds what an earlier one left at a
    block. All run in inference mode, and what they make of a thread's state besides they share.

    Args:
        model: dispatched, see ``models.dispatch``.
        passes: each calls the model once, or none does.

    Returns:
        What the passes return.

    Raises:
        BaseException: what a pass raised; the others have ended at the block where they were.
    """
    if len(passes) == 1:
        return [passes[0]()]
    placement = placement_of(model)
    assert placement is not None
    front = [_Turns(each, len(set(placement.blocks))) for each in passes]
    before = _blocks_before(placement.blocks)
    with (
        torch.inference_mode(),  # the first pass to end would end it for all
        fast_linear(model),
        shared_by(model, len(passes)),
        _stopping_at_blocks(model),
    ):
        try:
            while ready := [turn for place, turn in enumerate(front) if _may_go_on(front, place, before)]:
                for turn in ready:
                    turn.switch()
        finally:
            for turn in front:
                if turn:  # begun, and not at its end
                    turn.throw()
    return [turn.result for turn in front]


def _may_go_on(front: Sequence[_Turns[T]], place: int, before: Sequence[int]) -> bool:
    """Whether a pass takes its next block in this round.

    The pass before it has taken it, and all are done with the device's block before, whose buffer may be filled next.
    """
    turn = front[place]
    block = turn.taken
    follows = place == 0 or front[place - 1].dead or front[place - 1].taken > block
    hindmost = min((other.taken for other in front if not other.dead), default=0)
    return not turn.dead and follows and (block >= len(before) or before[block] < hindmost)


def _blocks_before(devices: Sequence[Device]) -> list[int]:
    """Of each block the one before it on its device; -1: there is none."""
    latest: dict[Device, int] = {}
    found: list[int] = []
    for block, device in enumerate(devices):
        found.append(latest.get(device, -1))
        latest[device] = block
    return found


class _Turns(greenlet, Generic[T]):
    """A pass among others, and what of it the devices have not done yet."""

    result: T

    def __init__(self, call: Callable[[], T], ahead: int) -> None:
        super().__init__()
        self.gr_context = copy_context()
        self.taken = 0
        """Blocks."""
        self._call, self._ahead = call, ahead
        self._done: deque[torch.cuda.Event] = deque()

    def run(self) -> None:
        """Make the pass."""
        self.result = self._call()

    def ends_block(self, device: torch.device, output: Any) -> None:
        """Give way, having queued no more than a round of the devices: what is under way there holds memory.

        By the time that the output leaves the device, another pass may have queued its next block there.
        """
        if device.type == "cuda":
            if torch.cuda.is_current_stream_capturing():  # a recording is made in one go
                return
            self._done.append(torch.cuda.current_stream(device).record_event())
            if isinstance(output, Tensor):
                note_written(output, self._done[-1])
            if len(self._done) > self._ahead:
                self._done.popleft().synchronize()
        self.taken += 1
        assert self.parent is not None
        self.parent.switch()


@contextmanager
def _stopping_at_blocks(model: PreTrainedModel) -> Iterator[None]:
    """Let every pass give way at the end of each block."""

    def ends(device: torch.device) -> Any:
        def end(block: Any, arguments: Any, output: Any) -> None:
            current = getcurrent()
            assert isinstance(current, _Turns)
            current.ends_block(device, output)

        return end

    blocks = zip(decoder_blocks(model), computing_devices(model), strict=True)
    hooks = [block.register_forward_hook(ends(device)) for block, device in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
