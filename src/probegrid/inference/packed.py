"""Rows packed into one sequence, each attending to itself alone: no arithmetic is spent on padding.

Knows transformers' interface to attention, and for which models of ours it may be taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from probegrid.inference.attention import RowCache, Softmax, attend_rows, has_kernels
from probegrid.inference.both_ways import why_alone
from probegrid.inference.layout import Layout
from probegrid.inference.mixers import asks_for_attention, mixers
from probegrid.inference.reasons import Unfit
from probegrid.models.blocks import computing_devices

if TYPE_CHECKING:
    from collections.abc import Mapping

ATTENTION = "probegrid_packed"


class Attends(Protocol):
    """Who answers for the attention of a forward pass."""

    kept: Tensor | None
    """[n] int64 on the CPU: the tokens of the pass that are asked for, see ``last_block``; None: all."""
    storing: bool
    """Whether the next call need only keep keys and values, and raise ``KeysAreKept``."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: Softmax) -> Tensor:
        """Attention of the next call of a pass: query [N, H, d], key and value [N, K, d]; returns [N, H, d]."""
        ...


_ATTENDS: ContextVar[Attends] = ContextVar("_ATTENDS")


@contextmanager
def attending(attends: Attends | None) -> Iterator[None]:
    """Let this one be asked for the attention of a forward pass, whatever arguments the model's code hands on."""
    if attends is None:
        yield
        return
    token = _ATTENDS.set(attends)
    try:
        yield
    finally:
        _ATTENDS.reset(token)


def who_attends() -> Attends | None:
    """Who is asked in the forward pass that is under way; None: nobody is, or none is."""
    return _ATTENDS.get(None)


@dataclass(frozen=True)
class Batch:
    """What a model is called with."""

    tensors: Mapping[str, Tensor]
    """On the CPU; they go to the embedding's device."""
    attends: Attends | None = None
    """Who is asked for the attention; None: the model's own code."""


def obstacle(model: PreTrainedModel) -> str | None:
    """Why rows cannot be packed for this model, or None if nothing is known against it."""
    if (reason := why_alone(model)) is not None:
        return reason
    if (
        getattr(model, "_supports_attention_backend", False)
        or any(asks_for_attention(module) for module in model.modules())
        or mixers(model)
    ):
        return None
    config: PreTrainedConfig = model.config.get_text_config()
    return f"{config.model_type} attends by code of its own, not through transformers' interface"


def take_attention(model: PreTrainedModel) -> None:
    """Let a model ask who is ``attending`` for its attention."""
    AttentionInterface.register(ATTENTION, _attention)
    model.set_attn_implementation(ATTENTION)


def give_back_attention(model: PreTrainedModel) -> None:
    """Let a model attend by transformers' own code."""
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")


def can_be_packed(model: PreTrainedModel) -> bool:
    """Whether rows are read packed: on GPUs with our kernels, where nothing is known against it."""
    devices = set(computing_devices(model))
    fast = all(has_kernels(torch.empty(0, dtype=model.dtype, device=device)) for device in devices)
    return bool(devices) and fast and obstacle(model) is None and not mixers(model)


def packed_batch(model: PreTrainedModel, token_ids: Sequence[Sequence[int]]) -> Batch:
    """Rows as one sequence."""
    take_attention(model)
    layout = Layout.of([len(row) for row in token_ids], [0] * len(token_ids))
    tensors = {"input_ids": packed(token_ids).unsqueeze(0), "position_ids": layout.slot.unsqueeze(0)}
    return Batch(tensors, _Rows(layout))


def packed(rows: Sequence[Sequence[int]]) -> Tensor:
    """The tokens of some rows, one behind the other: [N] int64."""
    count = sum(map(len, rows))
    return torch.from_numpy(np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=count))


class _Rows:
    """Each row attends to itself."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.kept: Tensor | None = None
        self.storing = False

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: Softmax) -> Tensor:
        """As ``Attends``."""
        from probegrid.inference.kernels import attend_packed

        layout = self._layout.to(query.device)
        if not how.is_plain(layout.max_length):
            cache = RowCache(layout.n_rows, layout.max_length, key)
            return attend_rows(query, (key, value), layout, cache, None, how, is_plain=False)
        attended: Tensor = attend_packed(query, None, (key, value), layout.row_first, how.scale)[0]
        return attended


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query [1, H, N, d], key and value [1, K, N, d]; returns [1, N, H, d]."""
    if query.shape[-2] != key.shape[-2]:
        raise Unfit(f"its {type(module).__name__} attends to other keys than one of each token")
    width, of_values = query.shape[-1], value.shape[-1]
    how = Softmax(width**-0.5 if scaling is None else scaling, sliding_window, softcap, s_aux)
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    if width != of_values:  # zeros change no score, and what they make of values is cut off
        widest = max(width, of_values)
        q, k, v = (F.pad(part, (0, widest - part.shape[-1])) for part in (q, k, v))
    attended = _ATTENDS.get().attend(q, k, v, how)
    return attended[..., :of_values].unsqueeze(0), None
