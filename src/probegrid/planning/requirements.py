"""The facts one plan is made from, and what they demand of devices.

Knows how tokens, types and quantization become bytes in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

from probegrid.hardware.devices import BYTES_PER_GB, Hardware
from probegrid.planning.architecture import (
    DTYPE_BYTES,
    Parts,
    kv_bytes_per_token,
    parameters,
    weight_bytes,
    working_bytes,
)
from probegrid.planning.placement import Demand, Placement
from probegrid.planning.workload import Batch, Workload, longest_of_passes
from probegrid.schema import Architecture, Dtype, PlacementStrategy, QuantizationMethod

_ENDS = 4
"""What goes into a block and what comes out, of this round of the devices and the last (``inference.wavefront``)."""
_CHOOSING_ROWS = 128
"""Rows whose next tokens are chosen at once (``inference.generation``)."""
_CHOOSING_BYTES, _SAMPLING_BYTES = 16, 32
"""Of a logit while a token is chosen: its softmax in float32; where samples are drawn, in float64."""


@dataclass(frozen=True)
class Facts:
    """A model, how it is stored, the devices it may use and what it will read."""

    architecture: Architecture
    dtype: Dtype
    method: QuantizationMethod
    strategy: PlacementStrategy
    overhead_gb: float
    hardware: Hardware
    workload: Workload
    stored: Parts | None = None
    """Bytes of each part as its files hold it, where it is taken as it is; None: by ``dtype`` and ``method``."""
    streams: bool = True
    """Whether blocks may wait in CPU memory."""
    is_quantized: bool = False
    """Whether the files are quantized already, in which no other quantization can be asked for."""

    @property
    def blocks(self) -> int:
        """Blocks that are read, from the first."""
        deepest = self.workload.deepest_layer
        return self.architecture.layers if deepest is None else deepest

    @property
    def with_head(self) -> bool:
        """Whether the final norm and the head compute."""
        return self.workload.deepest_layer is None

    @cached_property
    def parameters(self) -> Parts:
        """Parameters of each part."""
        return parameters(self.architecture)

    @cached_property
    def weights(self) -> Parts:
        """Bytes of each part."""
        return self.stored or weight_bytes(self.architecture, self.dtype, self.method)

    @cached_property
    def block_seconds(self) -> dict[Hashable, float]:
        """What is known already of how long blocks take; `timing` fills it."""
        return {}

    @property
    def kv_block_bytes_per_token(self) -> int:
        """Keys and values of one token in one block; 0 where nothing attends to them in a later pass."""
        if not (self.workload.generates or self.workload.prefix_tokens):
            return 0
        return kv_bytes_per_token(self.architecture, self.dtype, blocks=1)

    @property
    def gpu_budgets(self) -> list[int]:
        """Bytes each GPU may hold, its overhead taken off."""
        return [int((gpu.memory_gb - self.overhead_gb) * BYTES_PER_GB) for gpu in self.hardware.gpus]

    @property
    def cpu_budget(self) -> float:
        """Bytes of CPU memory that may be held; infinite where no limit is known."""
        memory_gb = self.hardware.cpu.memory_gb
        return math.inf if memory_gb is None else memory_gb * BYTES_PER_GB

    def passes_through(self, placement: Placement) -> tuple[int, int]:
        """Stages that passes go through one behind another, and passes that go side by side.

        Activations are read a pass at a time: each is waited for before the next begins.
        """
        return (placement.stages, placement.abreast) if self.workload.generates else (1, 1)

    def activation_bytes(self, batch: Batch, stages: int = 1, abreast: int = 1) -> int:
        """Working memory of each computing device in its largest pass, without logits; for the rest see ``demand``."""
        work = self.workload
        tokens = max(self.tokens_of_a_pass(batch, stages, abreast), batch.size * work.generations)
        return working_bytes(self.architecture, self.dtype, self.method, tokens, shares_prefix=work.generates)

    def tokens_of_a_pass(self, batch: Batch, stages: int = 1, abreast: int = 1) -> int:
        """Most tokens of the prefix or of prompts in one pass; see ``demand``."""
        work = self.workload
        prefix = min(batch.pass_tokens, work.prefix_tokens)
        cut = self.pass_limit(batch, stages, abreast)
        ahead = work.prefix_tokens if 2 * work.prefix_tokens <= cut else 0
        return max(min(cut, ahead + self._prompt_tokens(batch)), prefix, work.longest_tokens)

    def pass_limit(self, batch: Batch, stages: int = 1, abreast: int = 1) -> int:
        """Tokens that no pass of a run goes past, be its texts longer than the workload's; see ``demand``.

        A prefix that takes half of a pass at most is read with the first rows (``inference.shared_prefix``), and so
        has to find room in as many passes.
        """
        work, read = self.workload, self._prompt_tokens(batch)

        def cut(tokens: int) -> int:
            most, longest = batch.pass_tokens, work.longest_tokens
            return longest_of_passes(tokens, most, stages=stages, abreast=abreast, longest=longest)

        alone, prefix = cut(read), work.prefix_tokens
        return cut(prefix + read) if 2 * prefix <= alone else max(alone, min(batch.pass_tokens, prefix))

    def _prompt_tokens(self, batch: Batch) -> int:
        """Of a batch, without the prefix: of no batch more than of all examples."""
        work = self.workload
        return min(batch.size * work.longest_tokens, work.examples * work.prompt_tokens)

    def cache_tokens(self, batch: Batch) -> int:
        """Tokens with keys and values beside the shared prefix's, in a batch: each prompt once, each answer whole."""
        work = self.workload
        return batch.size * (work.longest_tokens + work.generations * work.new_tokens)

    def demand(self, batch: Batch, stages: int = 1, abreast: int = 1) -> Demand:
        """What has to find room for a batch.

        Args:
            batch: what is read side by side.
            stages: through which passes go one behind another: the more, the shorter they are.
            abreast: passes that go side by side, which are shorter too.
        """
        cached_tokens = self.workload.prefix_tokens + self.cache_tokens(batch)
        activations = self.activation_bytes(batch, stages, abreast)
        return Demand(
            weights=self.weights,
            blocks=self.blocks,
            with_head=self.with_head,
            tied=self.architecture.tied_embeddings,
            kv_block=cached_tokens * self.kv_block_bytes_per_token,
            activations=activations,
            logits=self._logit_bytes(batch, activations) if self.with_head else 0,
            crossing=_ENDS * self.tokens_of_a_pass(batch, stages, abreast) * self._stream_bytes
            if self.workload.generates
            else 0,
        )

    @property
    def _stream_bytes(self) -> int:
        """Of one token, between two blocks."""
        return self.architecture.hidden * DTYPE_BYTES[self.dtype]

    def _logit_bytes(self, batch: Batch, activations: int) -> int:
        """Logits of all rows, and what choosing from them takes beyond the working memory that is free by then."""
        work, vocab = self.workload, self.architecture.vocab
        rows = batch.size * work.generations
        held = rows * vocab * DTYPE_BYTES[self.dtype]
        of_a_logit = _SAMPLING_BYTES if work.generations > 1 else _CHOOSING_BYTES
        choosing = min(rows, _CHOOSING_ROWS) * vocab * of_a_logit
        return held + max(0, max(held, choosing) - activations)
