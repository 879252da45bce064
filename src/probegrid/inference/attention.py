"""Attention over parts: keys shared by every row, keys of a row's question, keys of its own answer.

Notation: N query tokens packed from several rows, H query heads, K key-value heads (H a multiple of K), G = H / K,
d head width, P prefix tokens, R rows, S slots of a row.

Softmax attention over a concatenation of keys equals the attention over each part, weighted by the softmax of the
parts' log-sum-exps (Hydragen, Juravsky et al. 2024, arXiv 2402.05099, eq. 4). So a prefix that all rows share is one
dense product of all queries with one copy of its keys; the answers to a question read the question's keys where they
lie, once for all of them; and each row attends to its own few tokens beside them. On CUDA in half precision the parts
are taken into one softmax (``kernels.py``); everywhere else they are dense products, merged here.

Knows tensors.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from probegrid.inference.layout import Growth, Layout

aten = torch.ops.aten

Pair = tuple[Tensor, Tensor]
"""Keys and values."""
Part = tuple[Tensor, Tensor]
"""Attention over some of the keys: output [N, K, G, d], log-sum-exp [N, K, G] in float32; views of any strides."""


def attend_prefix(query: Tensor, own: Pair, before: Pair | None, scale: float) -> Tensor:
    """Attention of the prefix's next tokens to the prefix so far and to themselves.

    Args:
        query: [N, H, d].
        own: their keys and values [N, K, d].
        before: the prefix's so far [P, K, d]; None: they are its first.
        scale: factor on the dot products.

    Returns:
        [N, H, d].
    """
    if has_kernels(query):
        from probegrid.inference.kernels import attend_packed

        first = torch.zeros(len(query), dtype=torch.int32, device=query.device)
        attended: Tensor = attend_packed(query, before, own, first, scale)[0]
        return attended
    parts = [] if before is None else [attend_all(query, *before, scale)]
    return merge([*parts, attend_causal(query, *own, scale)])


def attend_rows(
    query: Tensor, own: Pair, layout: Layout, cache: RowCache, prefix: Pair | None, scale: float
) -> Tensor:
    """Attention of new rows' tokens to the prefix and to their rows up to themselves; keeps their keys and values.

    Args:
        query: [N, H, d].
        own: keys and values [N, K, d] of the tokens.
        layout: of the tokens, whose rows have no earlier ones.
        cache: of the rows.
        prefix: keys and values [P, K, d]; None: there is none.
        scale: factor on the dot products.

    Returns:
        [N, H, d].
    """
    cache.append(*own, layout)
    if has_kernels(query):
        from probegrid.inference.kernels import attend_packed

        attended: Tensor = attend_packed(query, prefix, own, layout.row_first, scale)[0]
        return attended
    parts = [] if prefix is None else [attend_all(query, *prefix, scale)]
    return merge([*parts, cache.attend(query, layout, scale)])


def attend_step(
    query: Tensor,
    new: Pair,
    growth: Growth,
    questions: RowCache,
    own: RowCache,
    prefix: Pair | None,
    scale: float,
) -> Tensor:
    """Attention of each row's new token to the prefix, its question and its own answer; keeps its key and value.

    Args:
        query: [R, H, d].
        new: key and value [R, K, d] of the new tokens.
        growth: of the rows.
        questions: cache of the questions.
        own: cache of the answers.
        prefix: keys and values [P, K, d]; None: there is none.
        scale: factor on the dot products.

    Returns:
        [R, H, d].
    """
    own.grow(*new, growth)
    if has_kernels(query):
        from probegrid.inference.kernels import attend_grown, attend_packed

        at = growth.on(query.device)
        shared = None if prefix is None else attend_packed(query, prefix, None, None, scale)
        attended: Tensor = attend_grown(
            query,
            shared,
            (questions.keys, questions.values),
            (own.keys, own.values),
            at.run_starts,
            at.question_starts,
            at.question_lengths,
            at.own_lengths,
            growth.longest_run,
            scale,
        )
        return attended
    parts = [] if prefix is None else [attend_all(query, *prefix, scale)]
    return merge(
        [*parts, questions.attend_question(query, growth, scale), own.attend_grown(query, growth, scale)]
    )


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def has_kernels(like: Tensor) -> bool:
    """Whether our CUDA kernels take tensors like this: half precision, compute capability from 8 on, Triton there."""
    return (
        like.is_cuda
        and like.dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(like.device)[0] >= 8
        and _has_triton()
    )


def merge(parts: Sequence[Part]) -> Tensor:
    """Attention over the union of disjoint sets of keys, from that over each: [N, H, d] in the dtype of the outputs."""
    if len(parts) == 1:
        return parts[0][0].flatten(1, 2)
    total = torch.stack([lse for _, lse in parts]).logsumexp(0)
    weighted = [out.float() * (lse - total).exp().unsqueeze(-1) for out, lse in parts]
    return torch.stack(weighted).sum(0).to(parts[0][0].dtype).flatten(1, 2)


def attend_all(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Part:
    """Attend from every query to every key, no mask.

    Args:
        query: [N, H, d].
        keys, values: [P, K, d].
        scale: factor on the dot products.
    """
    # grouped heads become more queries of the same key head, so that keys are never repeated
    grouped = _in_groups(query, keys.shape[1]).permute(1, 0, 2, 3)
    k, v = keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0)
    out, lse = _dense(grouped.flatten(1, 2).unsqueeze(0), k, v, scale, causal=False)
    return out.view(grouped.shape).transpose(0, 1), lse.view(grouped.shape[:3]).transpose(0, 1)


def attend_causal(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Part:
    """Causal attention of a sequence to itself: query [N, H, d], keys and values [N, K, d]."""
    groups = query.shape[1] // keys.shape[1]
    q = query.transpose(0, 1).unsqueeze(0)
    k = keys.transpose(0, 1).repeat_interleave(groups, 0).unsqueeze(0)
    v = values.transpose(0, 1).repeat_interleave(groups, 0).unsqueeze(0)
    out, lse = _dense(q, k, v, scale, causal=True)
    return _as_part(out[0].transpose(0, 1), lse[0].transpose(0, 1), keys.shape[1])


def _in_groups(query: Tensor, kv_heads: int) -> Tensor:
    """From [N, H, d] to [N, K, G, d]."""
    grouped: Tensor = query.unflatten(1, (kv_heads, -1))
    return grouped


def _as_part(out: Tensor, lse: Tensor, kv_heads: int) -> Part:
    """From [N, H, d] and [N, H]."""
    return out.unflatten(1, (kv_heads, -1)), lse.unflatten(1, (kv_heads, -1))


def _dense(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention [B, H, T, d] with equal heads; output and log-sum-exp [B, H, T], by the fastest kernel there is."""
    if query.device.type == "cpu":
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, causal, scale=scale
        )
        return out, lse
    mask = None
    if causal:
        mask = torch.ones(query.shape[-2], keys.shape[-2], dtype=torch.bool, device=query.device).tril()
    return _plain(query, keys, values, scale, mask)


def _plain(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Softmax attention written out, scores in float32: query [..., T, d], keys and values [..., S, d]."""
    scores = (query.float() * scale) @ keys.float().transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    lse = scores.logsumexp(-1)
    return ((scores - lse.unsqueeze(-1)).exp() @ values.float()).to(query.dtype), lse


class RowCache:
    """Keys and values of the tokens of each of R rows, for one layer: [R, slots, K, d]."""

    def __init__(self, n_rows: int, slots: int, like: Tensor) -> None:
        """Allocate zeros on the device and in the dtype of ``like`` [N, K, d]."""
        shape = (n_rows, slots, *like.shape[1:])
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and slots of a row."""
        return self.keys.shape[0], self.keys.shape[1]

    def append(self, keys: Tensor, values: Tensor, layout: Layout) -> None:
        """Store keys and values [N, K, d] at the rows and slots of the layout."""
        places = layout.places(self.shape[1])
        if has_kernels(keys):
            from probegrid.inference.kernels import store

            store(self.keys, self.values, keys, values, places)
        else:
            self.keys.flatten(0, 1)[places] = keys
            self.values.flatten(0, 1)[places] = values

    def grow(self, keys: Tensor, values: Tensor, growth: Growth) -> None:
        """Store keys and values [R, K, d] of every row's new token."""
        slot = growth.on(keys.device).slot
        self.keys.index_copy_(1, slot, keys.unsqueeze(1))
        self.values.index_copy_(1, slot, values.unsqueeze(1))

    def select(self, rows: Tensor) -> None:
        """Keep the given rows [R'] in the given order; a row may be named more than once."""
        self.keys = self.keys.index_select(0, rows.to(self.keys.device))
        self.values = self.values.index_select(0, rows.to(self.values.device))

    def attend(self, query: Tensor, layout: Layout, scale: float) -> Part:
        """Attend from each token to its row's slots up to its own: query [N, H, d]."""
        rows = slice(layout.first_row, layout.first_row + layout.n_rows)
        keys, values = self.keys[rows, : layout.max_length], self.values[rows, : layout.max_length]
        return _attend_rows_padded(
            query, keys, values, layout.row, layout.slot, layout.row_starts, layout.max_new, scale
        )

    def attend_grown(self, query: Tensor, growth: Growth, scale: float) -> Part:
        """Attend from each row's new token to all that the row has grown by, itself included: query [R, H, d]."""
        at = growth.on(query.device)
        keys, values = self.keys[:, : growth.grown + 1], self.values[:, : growth.grown + 1]
        last = at.slot.expand(growth.n_rows)
        return _attend_rows_padded(query, keys, values, at.row, last, at.row_starts, 1, scale)

    def attend_question(self, query: Tensor, growth: Growth, scale: float) -> Part:
        """Attend from each row's new token to all of its question: query [R, H, d]; this cache has a row a question."""
        at = growth.on(query.device)
        keys, values = self.keys[:, : growth.longest_question], self.values[:, : growth.longest_question]
        if not growth.in_order:
            keys, values = keys.index_select(0, at.question), values.index_select(0, at.question)
        last = at.question_lengths[at.run] - 1
        return _attend_rows_padded(
            query, keys, values, at.run, last, at.run_starts, growth.longest_run, scale
        )


def _attend_rows_padded(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    row: Tensor,
    last: Tensor,
    row_starts: Tensor,
    most: int,
    scale: float,
) -> Part:
    """Attend to rows of different lengths by dense products, padded to the longest.

    Args:
        query: [N, H, d], those of a row adjacent.
        keys, values: [R, S, K, d].
        row: [N], of each query.
        last: [N]: the slot up to which it attends.
        row_starts: [R + 1]: where each row's queries begin.
        most: queries that any row has at most.
        scale: factor on the dot products.
    """
    rows, slots, kv_heads = keys.shape[:3]
    groups = query.shape[1] // kv_heads
    column = torch.arange(len(query), device=query.device) - row_starts[row]
    padded = query.new_zeros(rows, most, *query.shape[1:])
    padded[row, column] = query
    # [R, K, most x G, d]: grouped heads are more queries of the same key head
    q = padded.unflatten(2, (kv_heads, groups)).permute(0, 2, 1, 3, 4).flatten(2, 3)
    until = last.new_zeros(rows, most)
    until[row, column] = last
    visible = torch.arange(slots, device=query.device) <= until.repeat_interleave(groups, 1).unsqueeze(-1)
    k, v = keys.transpose(1, 2), values.transpose(1, 2)
    if query.device.type == "cpu":
        # one pass over keys and values where they lie; written out, they would be copied to be multiplied
        mask = query.new_zeros(visible.shape).masked_fill_(~visible, float("-inf")).unsqueeze(1)
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=mask, scale=scale
        )
    else:
        out, lse = _plain(q, k, v, scale, visible.unsqueeze(1))
    out = out.unflatten(2, (most, groups)).transpose(1, 2)
    lse = lse.unflatten(2, (most, groups)).transpose(1, 2)
    return out[row, column], lse[row, column]
