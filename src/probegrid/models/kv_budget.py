"""How much memory a loaded model leaves for the keys and values of a batch.

Knows devices and where a model's blocks lie.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from probegrid.hardware.memory import free_bytes
from probegrid.models.blocks import computing_devices

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


# Read when CUDA is first used. Tensors of many sizes come and go in a pass: without it the allocator holds a third more
# than it gives out, which a small card does not have.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

FREE_SHARE = {"cuda": 0.75, "cpu": 0.25}
"""Part of the free memory that keys and values may take; activations, logits and other programs need the rest."""


@dataclass(frozen=True)
class KVBudget:
    """Free bytes and bytes a token, of each device that holds blocks."""

    free_bytes: dict[torch.device, float]
    bytes_per_token: dict[torch.device, int]

    @classmethod
    def of(cls, model: PreTrainedModel) -> KVBudget:
        """Measure it now, with the model (and a prefix, if any) in memory."""
        of_block = _widest_pair(model.config.get_text_config())
        size = torch.empty((), dtype=model.dtype).element_size()
        blocks = Counter(computing_devices(model))
        free = {device: free_bytes(device) * FREE_SHARE[device.type] for device in blocks}
        return cls(free, {device: of_block * size * count for device, count in blocks.items()})

    def holds(self, tokens: int) -> bool:
        """Whether the keys and values of so many tokens, over all rows together, fit on every device."""
        return all(
            tokens * per_token <= self.free_bytes[device]
            for device, per_token in self.bytes_per_token.items()
        )


def _widest_pair(config: PreTrainedConfig) -> int:
    """Numbers of a token's keys and values in a block, the largest where blocks differ; 0 where none attends."""
    each = getattr(config, "per_layer_config", None)
    return max(map(_pair, each)) if each else _pair(config)


def _pair(config: PreTrainedConfig) -> int:
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * int(kv_heads) * int(width)
