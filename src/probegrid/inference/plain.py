"""The model's own forward pass over rows, one at a time: what every faster way to read it is held against.

Rows that begin with the same tokens can go on from the keys that the first of them leaves in the model's own cache: as
much arithmetic as one row, where the prefix is long, and good enough to agree with, not to convict. Knows transformers'
causal language models and their caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probegrid.inference.linear import fast_linear
from probegrid.inference.one_by_one import keeping, whole_row
from probegrid.models.load import embedding_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Asked = tuple[Sequence[int], int]
"""A whole row of token ids, and how many of its last tokens are asked for."""


def plain_logits(model: PreTrainedModel, row: Sequence[int], last: int) -> Tensor:
    """Logits [last, V] in float32 behind each of the last tokens of one row, by the model's own forward pass alone."""
    return _logits(model, row, 0, last, use_cache=False)


def logits_from_one_prefix(model: PreTrainedModel, shared: int, rows: Sequence[Asked]) -> list[Tensor] | None:
    """The same of several rows, whose first tokens are computed once: with the first row, which is read whole.

    Args:
        model: a causal language model, its attention its own.
        shared: tokens that all rows begin with, fewer than any has.
        rows: each with what is asked of it.

    Returns:
        Of each row [last, V] float32; None where the model keeps more than every token's keys and values.
    """
    from transformers import DynamicCache

    (whole, last), *others = rows
    cache: Any = DynamicCache()
    found = [_logits(model, whole, 0, last, use_cache=True, past_key_values=cache)]
    if not _holds_all_keys(cache, len(whole)):
        return None
    for row, asked in others:
        begun: Any = DynamicCache()
        for index, layer in enumerate(cache.layers):
            begun.update(layer.keys[..., :shared, :], layer.values[..., :shared, :], index)
        found.append(_logits(model, row, shared, asked, use_cache=True, past_key_values=begun))
    return found


def _holds_all_keys(cache: Any, length: int) -> bool:
    """Whether a cache is of that many tokens' keys and values in each layer, and of nothing else."""
    from transformers.cache_utils import DynamicLayer

    return bool(cache.layers) and all(
        type(layer) is DynamicLayer
        and layer.keys is not None
        and layer.values is not None
        and layer.keys.dim() == 4
        and layer.keys.shape[-2] == layer.values.shape[-2] == length
        for layer in cache.layers
    )


def _logits(model: PreTrainedModel, row: Sequence[int], begun: int, last: int, **how: Any) -> Tensor:
    ids = torch.tensor([list(row)], device=embedding_device(model))
    with torch.inference_mode(), fast_linear(model):
        told = whole_row(model, ids, prompt=len(row) - last + 1)  # behind which the first is asked for
        output = model(input_ids=ids[:, begun:], **told, **how, **keeping(model, last))
    logits: Tensor = output.logits
    return logits[0, -last:].float()
