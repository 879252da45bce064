"""Our kernels, found and loaded in a thread while a model's weights are read: the first pass would wait for them.

Knows a checkpoint's config and the attention.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from probegrid.inference.attention import (
    RowCache,
    Softmax,
    attend_prefix,
    attend_rows,
    attend_step,
    has_kernels,
)
from probegrid.inference.choosing import choose
from probegrid.inference.layout import Growth, Layout


def load_kernels(config: Mapping[str, Any], dtype: torch.dtype, gpus: Sequence[int]) -> threading.Thread:
    """Begin to load what greedy answers need, and return at once; what cannot be had is left to the first pass.

    Args:
        config: of the checkpoint, as its file has it; a family that has other names for its heads gets nothing.
        dtype: of the activations.
        gpus: that will compute; none: there is nothing to do.

    Returns:
        The thread, for whoever is about to use them.
    """
    thread = threading.Thread(target=_load, args=(config, dtype, tuple(gpus)), name="load kernels")
    thread.start()
    return thread


def _load(config: Mapping[str, Any], dtype: torch.dtype, gpus: Sequence[int]) -> None:
    text = config.get("text_config", config)
    heads = text.get("num_attention_heads")
    if not isinstance(heads, int) or not heads:
        return
    kv_heads = text.get("num_key_value_heads") or heads
    width = text.get("head_dim") or text.get("hidden_size", 0) // heads
    # whatever fails here, be it a compiler's or a full card's error, the model's own loading or its first pass says
    with contextlib.suppress(Exception):
        for gpu in gpus:
            device = torch.device("cuda", gpu)
            if has_kernels(torch.empty(0, dtype=dtype, device=device)):
                _use(heads, kv_heads, width, dtype, device)


@torch.inference_mode()
def _use(heads: int, kv_heads: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
    """Take two rows, of two tokens and of one, through a layer's attention, and choose."""
    query = torch.zeros(3, heads, width, dtype=dtype, device=device)
    own = query[:, :kv_heads].contiguous(), query[:, :kv_heads].contiguous()
    how, cache = Softmax(1.0), RowCache(2, 2, own[0])
    attend_prefix(query, own, None, how)
    layout = Layout.of([2, 1], [0, 0]).to(device)
    attend_rows(query, own, layout, cache, own, how, is_plain=True)
    growth = Growth([0, 1], [2, 1], slots=2, grown=0, longest_run=1)
    new = own[0][:2], own[1][:2]
    attend_step(query[:2], new, growth, cache, RowCache(2, 2, own[0]), own, how, is_plain=True)
    choose(query.new_zeros(2, 16), None, 1.0)
