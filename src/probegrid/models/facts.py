"""The facts one plan is made from, and what they demand of devices.

Knows how tokens, types and quantization become bytes in a batch; must not know where those bytes go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from probegrid.models.architecture import (
    DTYPE_BYTES,
    Parts,
    activation_bytes_per_token,
    kv_bytes_per_token,
    parameters,
    weight_bytes,
    workspace_bytes,
)
from probegrid.models.hardware import BYTES_PER_GB, Hardware
from probegrid.models.placement import Demand
from probegrid.models.workload import Workload
from probegrid.schema import Architecture, Dtype, PlacementStrategy, QuantizationMethod

_LOG_SOFTMAX_BYTES = 8
"""A logit in float32, twice: before and after the log-softmax."""


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

    @property
    def blocks(self) -> int:
        """Blocks to load, from the first."""
        deepest = self.workload.deepest_layer
        return self.architecture.layers if deepest is None else deepest

    @property
    def with_head(self) -> bool:
        """Whether the final norm and the head are loaded."""
        return self.workload.deepest_layer is None

    @cached_property
    def parameters(self) -> Parts:
        """Parameters of each part."""
        return parameters(self.architecture)

    @cached_property
    def weights(self) -> Parts:
        """Bytes of each part."""
        return weight_bytes(self.architecture, self.dtype, self.method)

    @property
    def loaded_parameters(self) -> int:
        """Parameters of what is loaded."""
        return self.parameters.total(self.blocks, with_head=self.with_head)

    @property
    def weight_bytes(self) -> int:
        """Bytes of what is loaded."""
        return self.weights.total(self.blocks, with_head=self.with_head)

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

    def activation_bytes(self, batch_size: int) -> int:
        """Working memory of each computing device in its largest pass, without logits."""
        work = self.workload
        tokens = max(work.prefix_tokens, batch_size * max(work.prompt_tokens, work.generations))
        workspace = workspace_bytes(self.architecture, self.dtype, self.method)
        return tokens * activation_bytes_per_token(self.architecture, self.dtype) + workspace

    def demand(self, batch_size: int) -> Demand:
        """What has to find room for ``batch_size`` examples."""
        work = self.workload
        rows = batch_size * work.generations
        cached_tokens = work.prefix_tokens + rows * (work.prompt_tokens + work.new_tokens)
        logit_bytes = DTYPE_BYTES[self.dtype] + _LOG_SOFTMAX_BYTES
        return Demand(
            weights=self.weights,
            blocks=self.blocks,
            with_head=self.with_head,
            tied=self.architecture.tied_embeddings,
            kv_block=cached_tokens * self.kv_block_bytes_per_token,
            activations=self.activation_bytes(batch_size),
            logits=rows * self.architecture.vocab * logit_bytes if self.with_head else 0,
        )
