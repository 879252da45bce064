"""A decoder whose rows share a prefix: its keys and values are computed once and held once, whatever the batch.

Knows a transformers causal language model and token ids.

The tokens of all rows are packed into one sequence, so that no arithmetic is spent on padding. Attention is two-part
(``attention.py``), registered through transformers' ``AttentionInterface``; the model's own code does all the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from probegrid.inference.attention import Layout, RowCache, attend_all, attend_causal, merge
from probegrid.inference.linear import fast_linear
from probegrid.models.load import embedding_device

ATTENTION = "probegrid_shared_prefix"


def obstacle(model: PreTrainedModel, longest: int) -> str | None:
    """Why this model cannot share a prefix for sequences of ``longest`` tokens, or None if it can."""
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


class SharedPrefixDecoder:
    """Prefill and step a batch of rows that begin with the same tokens.

    Rows are started by ``prefill``, advanced by ``step``, copied and dropped by ``keep``. One
    decoder serves many batches: ``reset`` forgets the rows and keeps the prefix.
    """

    def __init__(self, model: PreTrainedModel, prefix: Sequence[int], *, chunk_tokens: int) -> None:
        """Compute the prefix, ``chunk_tokens`` at a time.

        Args:
            model: a causal language model for which ``obstacle`` is None.
            prefix: token ids that every row begins with; may be empty.
            chunk_tokens: most tokens in one forward pass, which bounds the memory of activations.
        """
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.prefix_length = 0
        self.prefix: dict[int, tuple[Tensor, Tensor]] = {}
        self.rows: dict[int, RowCache] = {}
        self.lengths: list[int] = []
        self._capacity = 0
        self._layout: Layout | None = None
        AttentionInterface.register(ATTENTION, _attention)
        model.set_attn_implementation(ATTENTION)
        with torch.inference_mode():
            for start in range(0, len(prefix), chunk_tokens):
                chunk = list(prefix[start : start + chunk_tokens])
                self._forward(chunk, range(start, start + len(chunk)), last=[len(chunk) - 1])
                self.prefix_length += len(chunk)

    @property
    def prefix_bytes(self) -> int:
        """Bytes that the keys and values of the prefix take, on all devices together."""
        return sum(part.nbytes for pair in self.prefix.values() for part in pair)

    def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Replace all rows by new ones and read their own tokens, those that follow the prefix.

        Args:
            suffixes: token ids of each row after the prefix, at least one a row.
            room: tokens that each row may still grow by.

        Returns:
            Logits [rows, vocabulary] of the token after each row, in the model's dtype.
        """
        self.reset()
        self.lengths = [0] * len(suffixes)
        self._capacity = max(map(len, suffixes)) + room
        logits = []
        for first, group in _chunks(suffixes, self.chunk_tokens):
            counts = [len(row) for row in group]
            self._layout = Layout.of(counts, [0] * len(group), first)
            tokens = [token for row in group for token in row]
            positions = [self.prefix_length + slot for row in group for slot in range(len(row))]
            ends = (self._layout.row_starts[1:] - 1).tolist()
            logits.append(self._forward(tokens, positions, last=ends))
            self.lengths[first : first + len(group)] = counts
        return torch.cat(logits)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append one token to every row and return the logits [rows, vocabulary] of the next."""
        self._layout = Layout.of([1] * len(tokens), self.lengths)
        positions = [self.prefix_length + length for length in self.lengths]
        logits = self._forward(list(tokens), positions, last=range(len(tokens)))
        self.lengths = [length + 1 for length in self.lengths]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row named several times is copied."""
        chosen = torch.tensor(rows)
        for cache in self.rows.values():
            cache.select(chosen)
        self.lengths = [self.lengths[row] for row in rows]

    def reset(self) -> None:
        """Forget all rows, free their memory, keep the prefix."""
        self.rows.clear()
        self.lengths = []
        self._layout = None

    def _forward(self, tokens: list[int], positions: Sequence[int], last: Sequence[int]) -> Tensor:
        device = embedding_device(self.model)
        with torch.inference_mode(), fast_linear(self.model):
            output = self.model(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.tensor([list(positions)], device=device),
                use_cache=False,
                logits_to_keep=torch.tensor(list(last), device=device),
                shared_prefix=self,
            )
        logits: Tensor = output.logits
        return logits[0]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer for the tokens of this forward pass; called from inside the model.

        Args:
            layer: index of the block.
            query: [N, H, d].
            key, value: [N, K, d] of the same tokens; stored here.
            scale: factor on the dot products.

        Returns:
            [N, H, d].
        """
        before = self.prefix.get(layer)
        if self._layout is None:  # the prefix itself, or its next chunk
            own = attend_causal(query, key, value, scale)
            if before is None:
                self.prefix[layer] = (key.contiguous(), value.contiguous())
            else:
                self.prefix[layer] = (torch.cat([before[0], key]), torch.cat([before[1], value]))
        else:
            layout = self._layout.to(query.device)
            if layer not in self.rows:
                self.rows[layer] = RowCache(len(self.lengths), self._capacity, key)
            self.rows[layer].append(key, value, layout)
            own = self.rows[layer].attend(query, layout, scale)
        return own[0] if before is None else merge(attend_all(query, *before, scale), own)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    shared_prefix: SharedPrefixDecoder,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface: query [1, H, N, d], key and value [1, K, N, d]; returns [1, N, H, d]."""
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    return shared_prefix.attend(module.layer_idx, q, k, v, scaling).unsqueeze(0), None


def _chunks(rows: Sequence[Sequence[int]], most: int) -> list[tuple[int, Sequence[Sequence[int]]]]:
    """Cut rows into groups of at most ``most`` tokens, a longer row alone: (index of the first row, rows)."""
    groups: list[tuple[int, Sequence[Sequence[int]]]] = []
    first, size = 0, 0
    for index, row in enumerate(rows):
        if index > first and size + len(row) > most:
            groups.append((first, rows[first:index]))
            first, size = index, 0
        size += len(row)
    return [*groups, (first, rows[first:])]
