"""Rows packed into one sequence, each attending to itself alone: no arithmetic is spent on padding.

Knows transformers' interface to attention, and for which models of ours it may be taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from probegrid.inference.attention import has_kernels
from probegrid.inference.layout import Layout
from probegrid.models.blocks import decoder_blocks, execution_device

if TYPE_CHECKING:
    from collections.abc import Mapping

ATTENTION = "probegrid_packed"


class Attends(Protocol):
    """Who answers for the attention of a forward pass."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer: query [N, H, d], key and value [N, K, d]; returns [N, H, d]."""
        ...


@dataclass(frozen=True)
class Batch:
    """What a model is called with."""

    tensors: Mapping[str, Tensor]
    """On the CPU; they go to the embedding's device."""
    others: Mapping[str, Any]


def obstacle(model: PreTrainedModel, longest: int) -> str | None:
    """Why rows of up to ``longest`` tokens cannot be packed for this model, or None if they can."""
    config: PreTrainedConfig = model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False):
        return f"{config.model_type} does not take an attention function of its own choice"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return f"{config.model_type} has layers other than attention ({', '.join(sorted(kinds))})"
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds if getattr(config, "layer_types", None) else window is not None
    if slides and window is not None and longest > window:
        return f"sequences of {longest} tokens pass the sliding window of {window}"
    for name in ("attn_logit_softcapping", "num_kv_shared_layers", "attention_chunk_size"):
        if getattr(config, name, None):
            return f"{config.model_type} computes attention with {name}"
    if any(hasattr(module, "sinks") for module in model.modules()):
        return f"{config.model_type} computes attention with sinks"
    return None


def take_attention(model: PreTrainedModel) -> None:
    """Let a model ask the ``attends`` of each forward pass for its attention."""
    AttentionInterface.register(ATTENTION, _attention)
    model.set_attn_implementation(ATTENTION)


def can_be_packed(model: PreTrainedModel, longest: int) -> bool:
    """Whether rows of up to ``longest`` tokens are read packed: on GPUs with our kernels, where nothing forbids it."""
    devices = {execution_device(block) for block in decoder_blocks(model)}
    fast = all(has_kernels(torch.empty(0, dtype=model.dtype, device=device)) for device in devices)
    return bool(devices) and fast and obstacle(model, longest) is None


def packed_batch(model: PreTrainedModel, token_ids: Sequence[Sequence[int]]) -> Batch:
    """Rows as one sequence."""
    take_attention(model)
    layout = Layout.of([len(row) for row in token_ids], [0] * len(token_ids))
    tensors = {"input_ids": packed(token_ids).unsqueeze(0), "position_ids": layout.slot.unsqueeze(0)}
    return Batch(tensors, {"attends": _Rows(layout)})


def packed(rows: Sequence[Sequence[int]]) -> Tensor:
    """The tokens of some rows, one behind the other: [N] int64."""
    count = sum(map(len, rows))
    return torch.from_numpy(np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=count))


class _Rows:
    """Each row attends to itself."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """As ``Attends``."""
        from probegrid.inference.kernels import attend_packed

        first = self._layout.to(query.device).row_first
        attended: Tensor = attend_packed(query, None, (key, value), first, scale)[0]
        return attended


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    attends: Attends,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query [1, H, N, d], key and value [1, K, N, d]; returns [1, N, H, d]."""
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    return attends.attend(module.layer_idx, q, k, v, scaling).unsqueeze(0), None
