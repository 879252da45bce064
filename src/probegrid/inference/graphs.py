"""A step of decoding as CUDA graphs: one for each stretch of blocks on one device, with the crossings between them.

A graph runs what it recorded on the very tensors it recorded: what changes between steps is written into them. Knows a
decoder's step, and streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from probegrid.inference.attention import has_kernels
from probegrid.inference.choosing import choose
from probegrid.inference.layout import Growth
from probegrid.models.blocks import computing_devices, execution_device
from probegrid.models.border import copy_between, taken_over
from probegrid.models.dispatch import streamed_bytes
from probegrid.models.load import embedding_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Recordable(Protocol):
    """What is recorded of a decoder."""

    model: PreTrainedModel

    def forward_step(self, tokens: Tensor, growth: Growth) -> Tensor:
        """Logits [R, V] behind each row's newest token [R]; nothing advances."""
        ...


def can_be_recorded(model: PreTrainedModel) -> bool:
    """Whether a step runs the same kernels on the same memory each time: all of it on GPUs, and nothing is streamed."""
    on_gpus = all(has_kernels(torch.empty(0, dtype=model.dtype, device=device)) for device in _devices(model))
    return on_gpus and not streamed_bytes(model)


def _devices(model: PreTrainedModel) -> set[torch.device]:
    head = model.get_output_embeddings()
    ends = {embedding_device(model)} if head is None else {embedding_device(model), execution_device(head)}
    return ends | set(computing_devices(model))


@dataclass
class _Stretch:
    """What runs on one device between two crossings."""

    graph: torch.cuda.CUDAGraph
    device: torch.device
    arrivals: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Each tensor that comes from another device, and the one it is copied to before the graph runs."""


class StepGraph:
    """One step of a decoder's rows: from their newest tokens to the next, and their log-probabilities."""

    def __init__(
        self,
        decoder: Recordable,
        growth: Growth,
        tokens: Tensor,
        draws: Tensor | None,
        temperature: float,
    ) -> None:
        """Record a step; it does not run yet.

        Args:
            decoder: it or another of its model took a step of as many rows before, so that all kernels are loaded. Its
                rows have all the caches they need.
            growth: of its rows.
            tokens: [R], the newest of each row.
            draws: [R, most] float64, see `choosing.choose`, on the device of the logits; None: all likeliest.
            temperature: of the drawn rows.
        """
        self._growth, self._temperature = growth, temperature
        self._ids = tokens.to(embedding_device(decoder.model), copy=True)
        self.draws = None if draws is None else draws.clone()
        self._stretches: list[_Stretch] = []
        self._chosen: torch.cuda.Event | None = None
        """When the last step's tokens were there, which are to be brought to the first stretch's device."""
        for device in _devices(decoder.model):
            growth.on(device)  # what were copied there while it records would be copied at each step
        with torch.inference_mode(), taken_over(self._cross), _same_streams_after():
            self._begin(self._ids.device)
            try:
                logits = decoder.forward_step(self._ids, growth)
                at = growth.on(logits.device)
                drawn = None if self.draws is None else self.draws.index_select(1, at.slot + 1).squeeze(1)
                self.tokens, self.logprobs = choose(logits, drawn, temperature)
                if self.tokens.device == self._ids.device:
                    self._ids.copy_(self.tokens)
            finally:
                self._stretches[-1].graph.capture_end()

    @torch.inference_mode()
    def run(self) -> None:
        """Take the step: ``tokens`` and ``logprobs`` hold what it chose, until the next one."""
        if self._chosen is not None:  # only now, so that no step of other rows waits for this one's end
            copy_between(self.tokens, self._ids, self._chosen)
        done: torch.cuda.Event | None = None
        for stretch in self._stretches:
            for source, target in stretch.arrivals:
                assert done is not None
                copy_between(source, target, done)
            with torch.cuda.device(stretch.device):
                stretch.graph.replay()
                done = torch.cuda.current_stream(stretch.device).record_event()
        self._chosen = done if self.tokens.device != self._ids.device else None
        self._growth.advance()

    def serves(self, growth: Growth, draws: Tensor | None, temperature: float) -> bool:
        """Whether rows of another batch, in the same caches, can be stepped by it."""
        mine = self._growth
        return (
            temperature == self._temperature
            and (growth.n_rows, growth.n_runs, growth.longest_run)
            == (mine.n_rows, mine.n_runs, mine.longest_run)
            and (draws is None) == (self.draws is None)
            and (draws is None or self.draws is None or draws.shape == self.draws.shape)
        )

    @torch.inference_mode()
    def go_on_with(self, growth: Growth, tokens: Tensor, draws: Tensor | None) -> Growth:
        """Step other rows from now on, which it ``serves``; returns their layout, in the tensors it reads."""
        self._growth.become(growth)
        self._ids.copy_(tokens)
        self._chosen = None
        if self.draws is not None and draws is not None:
            self.draws.copy_(draws)
        return self._growth

    def _begin(self, device: torch.device) -> None:
        torch.cuda.set_stream(torch.cuda.Stream(device))
        self._stretches.append(_Stretch(torch.cuda.CUDAGraph(), device))
        self._stretches[-1].graph.capture_begin(capture_error_mode="thread_local")

    def _cross(self, values: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        """End the stretch at a crossing, and begin the next behind it."""
        self._stretches[-1].graph.capture_end()
        targets = [torch.empty_like(value, device=device) for value in values]
        self._begin(device)
        self._stretches[-1].arrivals = list(zip(values, targets, strict=True))
        return targets


@contextmanager
def _same_streams_after() -> Iterator[None]:
    """Leave the current device and every device's current stream as they were."""
    device = torch.cuda.current_device()
    streams = [torch.cuda.current_stream(each) for each in range(torch.cuda.device_count())]
    try:
        yield
    finally:
        for stream in streams:
            torch.cuda.set_stream(stream)
        torch.cuda.set_device(device)
