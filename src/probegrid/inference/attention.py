"""Attention over parts: keys shared by every row, keys of a row's question, keys of its own answer.

Notation: N query tokens packed from several rows, H query heads, K key-value heads (H a multiple of K), G = H / K,
d head width, P prefix tokens, R rows, S slots of a row.

Softmax attention over a concatenation of keys equals the attention over each part, weighted by the softmax of the
parts' log-sum-exps (Hydragen, Juravsky et al. 2024, arXiv 2402.05099, eq. 4). So a prefix that all rows share is one
dense product of all queries with one copy of its keys; the answers to a question read the question's keys where they
lie, once for all of them; and each row attends to its own few tokens beside them. On CUDA in half precision the parts
are taken into one softmax (``kernels.py``); everywhere else they are dense products, merged here. A window that is
passed, capped scores and sinks (`Softmax`) are dense products with masks on every device.

Knows tensors.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from probegrid.inference.forest import Forest
from probegrid.inference.layout import Growth, Layout

aten = torch.ops.aten

Pair = tuple[Tensor, Tensor]
"""Keys and values."""
Part = tuple[Tensor, Tensor]
"""Attention over some of the keys: output [N, K, G, d], log-sum-exp [N, K, G] in float32; views of any strides."""


_SCORES = 1 << 26
"""Scores that a masked product holds at once."""
_TREE_QUERIES = 256
"""Tokens of a forest that attend together: few, for they are shown all that any of their trees has before them."""


@dataclass(frozen=True)
class Softmax:
    """How scores become weights, as a layer asks for it."""

    scale: float
    """Factor on the dot products."""
    window: int | None = None
    """Keys that a query sees at most, its own the last; None: all up to its own."""
    cap: float | None = None
    """c of ``c tanh(score / c)``; None: scores are what they are."""
    sinks: Tensor | None = None
    """[H]: for each head a score without a value, which takes its share of the weight; None: there is none."""

    def is_plain(self, longest: int) -> bool:
        """Whether rows of up to so many tokens need nothing but the scale."""
        return self.cap is None and self.sinks is None and (self.window is None or longest <= self.window)


def attend_prefix(query: Tensor, own: Pair, before: Pair | None, how: Softmax) -> Tensor:
    """Attention of the prefix's next tokens to the prefix so far and to themselves.

    Args:
        query: [N, H, d].
        own: their keys and values [N, K, d].
        before: the prefix's so far [P, K, d]; None: they are its first.
        how: of the layer.

    Returns:
        [N, H, d].
    """
    start, scale = 0 if before is None else len(before[0]), how.scale
    if not how.is_plain(start + len(query)):
        keys, values = own
        begin = start if before is None else _first_seen(start, how)
        if before is not None:
            keys, values = torch.cat([before[0][begin:], keys]), torch.cat([before[1][begin:], values])
        place = torch.arange(start - begin, start - begin + len(query), device=query.device)
        return merge([_attend_masked(query, keys, values, place, how)], how.sinks)
    if has_kernels(query):
        from probegrid.inference.kernels import attend_packed

        first = torch.zeros(len(query), dtype=torch.int32, device=query.device)
        attended: Tensor = attend_packed(query, before, own, first, scale)[0]
        return attended
    parts = [] if before is None else [attend_all(query, *before, scale)]
    return merge([*parts, attend_causal(query, *own, scale)])


def attend_rows(
    query: Tensor,
    own: Pair,
    layout: Layout,
    cache: RowCache,
    prefix: Pair | None,
    how: Softmax,
    *,
    is_plain: bool,
) -> Tensor:
    """Attention of new rows' tokens to the prefix and to their rows up to themselves; keeps their keys and values.

    Args:
        query: [N, H, d].
        own: keys and values [N, K, d] of the tokens.
        layout: of the tokens, whose rows have no earlier ones.
        cache: of the rows.
        prefix: keys and values [P, K, d]; None: there is none.
        how: of the layer.
        is_plain: whether the rows, however long they may grow, need nothing of it but the scale.

    Returns:
        [N, H, d].
    """
    cache.append(*own, layout)
    scale = how.scale
    if not is_plain:
        parts = [] if prefix is None else [_attend_end_of(prefix, query, layout.slot, how)]
        return merge([*parts, cache.attend(query, layout, how, masked=True)], how.sinks)
    if has_kernels(query):
        from probegrid.inference.kernels import attend_packed

        attended: Tensor = attend_packed(query, prefix, own, layout.row_first, scale)[0]
        return attended
    parts = [] if prefix is None else [attend_all(query, *prefix, scale)]
    return merge([*parts, cache.attend(query, layout, how)])


def attend_ends(
    query: Tensor, ends: Layout, cache: RowCache, prefix: Pair | None, how: Softmax, *, is_plain: bool
) -> Tensor:
    """Attention of the last token of each row, whose keys and values are kept already; else as `attend_rows`.

    Args:
        query: [R, H, d].
        ends: of these tokens.
        cache: of the rows.
        prefix: keys and values [P, K, d]; None: there is none.
        how: of the layer.
        is_plain: as of `attend_rows`.

    Returns:
        [R, H, d].
    """
    if not is_plain:
        parts = [] if prefix is None else [_attend_end_of(prefix, query, ends.slot, how)]
        return merge([*parts, cache.attend(query, ends, how, masked=True)], how.sinks)
    if has_kernels(query):
        from probegrid.inference.kernels import attend_grown, attend_packed

        shared = None if prefix is None else attend_packed(query, prefix, None, None, how.scale)
        held = (cache.keys, cache.values)
        starts = ((ends.row + ends.first_row) * cache.shape[1]).int()
        none = torch.zeros_like(ends.lengths)
        attended: Tensor = attend_grown(
            query, shared, held, held, ends.row_starts, starts, ends.lengths, none, 1, how.scale
        )
        return attended
    parts = [] if prefix is None else [attend_all(query, *prefix, how.scale)]
    return merge([*parts, cache.attend(query, ends, how)])


def attend_forest(
    query: Tensor, own: Pair, forest: Forest, prefix: Pair | None, how: Softmax, *, is_plain: bool
) -> Tensor:
    """Attention of a forest's tokens to the prefix, and to the tokens that they are below and themselves.

    Args:
        query: [N, H, d].
        own: keys and values [N, K, d] of the tokens.
        forest: of rows behind the prefix.
        prefix: keys and values [P, K, d]; None: there is none.
        how: of the layer.
        is_plain: whether the rows need nothing of it but the scale.

    Returns:
        [N, H, d].
    """
    above = _attend_above(query, own, forest, how, is_plain=is_plain)
    if prefix is None:
        return merge([above], how.sinks)
    if not is_plain:
        return merge([_attend_end_of(prefix, query, forest.depth, how), above], how.sinks)
    if has_kernels(query):
        from probegrid.inference.kernels import attend_packed

        out, lse = attend_packed(query, prefix, None, None, how.scale)
        of_prefix = _as_part(out, lse * math.log(2), own[0].shape[1])  # the kernel's is in base 2
    else:
        of_prefix = attend_all(query, *prefix, how.scale)
    return merge([of_prefix, above])


def attend_step(
    query: Tensor,
    new: Pair,
    growth: Growth,
    questions: RowCache,
    own: RowCache,
    prefix: Pair | None,
    how: Softmax,
    *,
    is_plain: bool,
) -> Tensor:
    """Attention of each row's new token to the prefix, its question and its own answer; keeps its key and value.

    Args:
        query: [R, H, d].
        new: key and value [R, K, d] of the new tokens.
        growth: of the rows.
        questions: cache of the questions.
        own: cache of the answers.
        prefix: keys and values [P, K, d]; None: there is none.
        how: of the layer.
        is_plain: as of `attend_rows`.

    Returns:
        [R, H, d].
    """
    own.grow(*new, growth)
    scale = how.scale
    if not is_plain:
        at = growth.on(query.device)
        since = at.question_lengths[at.run] + at.slot
        parts = [] if prefix is None else [_attend_end_of(prefix, query, since, how)]
        parts.append(questions.attend_question(query, growth, how, masked=True))
        return merge([*parts, own.attend_grown(query, growth, how, masked=True)], how.sinks)
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
        [*parts, questions.attend_question(query, growth, how), own.attend_grown(query, growth, how)]
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


def merge(parts: Sequence[Part], sinks: Tensor | None = None) -> Tensor:
    """Attention over the union of disjoint sets of keys, from that over each: [N, H, d] in the dtype of the outputs.

    Args:
        parts: of each query at least one of them sees a key.
        sinks: [H], see `Softmax`.
    """
    if len(parts) == 1 and sinks is None:
        return parts[0][0].flatten(1, 2)
    total = torch.stack([lse for _, lse in parts]).logsumexp(0)
    if sinks is not None:
        total = torch.logaddexp(total, sinks.float().view(total.shape[1:]))
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
    query: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None, cap: float | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention written out, scores in float32: query [..., T, d], keys and values [..., S, d].

    A query that sees no key has an output of 0 and a log-sum-exp of minus infinity.
    """
    scores = (query.float() * scale) @ keys.float().transpose(-1, -2)
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    lse = scores.logsumexp(-1)
    level = lse.masked_fill(lse == float("-inf"), 0.0).unsqueeze(-1)
    return ((scores - level).exp() @ values.float()).to(query.dtype), lse


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

    def attend(self, query: Tensor, layout: Layout, how: Softmax, *, masked: bool = False) -> Part:
        """Attend from each token to its row's slots up to its own: query [N, H, d]; ``masked``: as ``how`` has it."""
        rows = slice(layout.first_row, layout.first_row + layout.n_rows)
        keys, values = self.keys[rows, : layout.max_length], self.values[rows, : layout.max_length]
        seen = _Seen(layout.row, layout.slot, layout.row_starts, layout.max_new)
        if masked:
            seen = seen.from_first(layout.slot, how)
        return _attend_rows_padded(query, keys, values, seen, how, masked=masked)

    def attend_grown(self, query: Tensor, growth: Growth, how: Softmax, *, masked: bool = False) -> Part:
        """Attend from each row's new token to all that the row has grown by, itself included: query [R, H, d]."""
        at = growth.on(query.device)
        # on CUDA the step may be recorded: what changes from step to step is in tensors alone
        until = self.shape[1] if query.is_cuda else growth.grown + 1
        last = at.slot.expand(growth.n_rows)
        seen = _Seen(at.row, last, at.row_starts, 1)
        if masked:
            seen = seen.from_first(last, how)
        return _attend_rows_padded(
            query, self.keys[:, :until], self.values[:, :until], seen, how, masked=masked
        )

    def attend_question(self, query: Tensor, growth: Growth, how: Softmax, *, masked: bool = False) -> Part:
        """Attend from each row's new token to all of its question: query [R, H, d]; this cache has a row a question."""
        at = growth.on(query.device)
        until = self.shape[1] if query.is_cuda else growth.longest_question
        keys, values = self.keys[:, :until], self.values[:, :until]
        if query.is_cuda or not growth.in_order:
            keys, values = keys.index_select(0, at.question), values.index_select(0, at.question)
        last = at.question_lengths[at.run] - 1
        seen = _Seen(at.run, last, at.run_starts, growth.longest_run)
        if masked:
            seen = seen.from_first(last + 1 + at.slot, how)
        return _attend_rows_padded(query, keys, values, seen, how, masked=masked)


@dataclass(frozen=True)
class _Seen:
    """Which slots of its row each of N queries sees."""

    row: Tensor
    """[N], of each query; those of a row are adjacent."""
    last: Tensor
    """[N]: the slot up to which it attends."""
    row_starts: Tensor
    """[R + 1]: where each row's queries begin."""
    most: int
    """Queries that any row has at most."""
    first: Tensor | None = None
    """[N]: the slot from which it attends on; None: the first."""

    def from_first(self, place: Tensor, how: Softmax) -> _Seen:
        """The same within the window of queries that are at so many slots' distance [N] from the first."""
        if how.window is None:
            return self
        return _Seen(self.row, self.last, self.row_starts, self.most, place - how.window + 1)


def _attend_rows_padded(
    query: Tensor, keys: Tensor, values: Tensor, seen: _Seen, how: Softmax, *, masked: bool
) -> Part:
    """Attend to rows of different lengths by dense products, padded to the longest.

    Args:
        query: [N, H, d].
        keys, values: [R, S, K, d].
        seen: slots of each query.
        how: its scale alone counts where not ``masked``.
        masked: whether a query may see no slot at all, or scores are capped.
    """
    rows, slots, kv_heads = keys.shape[:3]
    groups = query.shape[1] // kv_heads
    column = torch.arange(len(query), device=query.device) - seen.row_starts[seen.row]
    padded = query.new_zeros(rows, seen.most, *query.shape[1:])
    padded[seen.row, column] = query
    # [R, K, most x G, d]: grouped heads are more queries of the same key head
    q = padded.unflatten(2, (kv_heads, groups)).permute(0, 2, 1, 3, 4).flatten(2, 3)

    def of_padded(slot: Tensor) -> Tensor:
        each = slot.new_zeros(rows, seen.most)
        each[seen.row, column] = slot
        return each.repeat_interleave(groups, 1).unsqueeze(-1)

    slot = torch.arange(slots, device=query.device)
    visible = slot <= of_padded(seen.last)
    if seen.first is not None:
        visible &= slot >= of_padded(seen.first)
    k, v = keys.transpose(1, 2), values.transpose(1, 2)
    if query.device.type == "cpu" and not masked:
        # one pass over keys and values where they lie; written out, they would be copied to be multiplied
        mask = query.new_zeros(visible.shape).masked_fill_(~visible, float("-inf")).unsqueeze(1)
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=mask, scale=how.scale
        )
    else:
        out, lse = _plain_in_parts(q, k, v, visible.unsqueeze(1), how)
    out = out.unflatten(2, (seen.most, groups)).transpose(1, 2)
    lse = lse.unflatten(2, (seen.most, groups)).transpose(1, 2)
    return out[seen.row, column], lse[seen.row, column]


def _attend_above(query: Tensor, own: Pair, forest: Forest, how: Softmax, *, is_plain: bool) -> Part:
    """Attend from a forest's tokens, queries [N, H, d], to those that they are below, some at a time."""
    keys, values = (part.transpose(0, 1) for part in own)  # [K, N, d]
    grouped = _in_groups(query, len(keys))
    groups, window = grouped.shape[2], None if is_plain else how.window
    step = max(1, min(_TREE_QUERIES, _SCORES // (query.shape[1] * len(query))))
    found: list[Part] = []
    for start in range(0, len(query), step):
        stop = min(start + step, len(query))
        begin, visible = forest.seen(start, stop, window)
        q, k, v = grouped[start:stop].permute(1, 2, 0, 3), keys[:, begin:stop], values[:, begin:stop]
        if query.device.type == "cpu" and is_plain:
            mask = query.new_zeros(visible.shape).masked_fill_(~visible, float("-inf")).repeat(groups, 1)
            out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
                q.flatten(1, 2)[None],
                k[None],
                v[None],
                0.0,
                False,
                attn_mask=mask[None, None],
                scale=how.scale,
            )
            out, lse = out.view(q.shape), lse.view(q.shape[:3])
        else:
            out, lse = _plain(q, k.unsqueeze(1), v.unsqueeze(1), how.scale, visible, how.cap)
        found.append((out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)))
    return torch.cat([out for out, _ in found]), torch.cat([lse for _, lse in found])


def _plain_in_parts(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, how: Softmax
) -> tuple[Tensor, Tensor]:
    """`_plain` of rows [R, K, T, d], of so many rows and queries at once that their scores have room."""
    _, kv_heads, queries, _ = query.shape
    of_query = kv_heads * keys.shape[2]
    rows = max(1, _SCORES // (of_query * queries))
    step = max(1, _SCORES // of_query)
    found = [
        [
            _plain(
                query[row : row + rows, :, start : start + step],
                keys[row : row + rows],
                values[row : row + rows],
                how.scale,
                mask[row : row + rows, :, start : start + step],
                how.cap,
            )
            for start in range(0, queries, step)
        ]
        for row in range(0, len(query), rows)
    ]
    if len(found) == 1 and len(found[0]) == 1:
        return found[0][0]
    out, lse = (
        torch.cat([torch.cat([part[kind] for part in parts], 2) for parts in found]) for kind in (0, 1)
    )
    return out, lse


def _first_seen(place: int, how: Softmax) -> int:
    """The first token that one at ``place`` sees."""
    return 0 if how.window is None else max(0, place - how.window + 1)


def _attend_end_of(prefix: Pair, query: Tensor, since: Tensor, how: Softmax) -> Part:
    """Attend to what a window leaves of the prefix, of queries [N, H, d] that are ``since`` [N] tokens behind it."""
    keys, values = prefix
    begin = _first_seen(len(keys), how)
    # each sees the prefix up to its end, from its window's begin on
    place = since + (len(keys) - begin)
    return _attend_masked(query, keys[begin:], values[begin:], place, how)


def _attend_masked(query: Tensor, keys: Tensor, values: Tensor, place: Tensor, how: Softmax) -> Part:
    """Attend from queries at some places to the keys up to there, as ``how`` has it; a query may see none.

    Args:
        query: [N, H, d].
        keys, values: [S, K, d], those of the places 0 to S - 1.
        place: [N], of each query.
        how: of the layer.
    """
    grouped = _in_groups(query, keys.shape[1])  # [N, K, G, d]
    k, v = keys.transpose(0, 1), values.transpose(0, 1)
    at = torch.arange(len(keys), device=query.device)
    step = max(1, _SCORES // max(1, query.shape[1] * len(keys)))
    found: list[Part] = []
    for start in range(0, len(query), step):
        q, here = grouped[start : start + step].permute(1, 2, 0, 3), place[start : start + step].unsqueeze(-1)
        visible = at <= here
        if how.window is not None:
            visible &= at > here - how.window
        out, lse = _plain(q, k.unsqueeze(1), v.unsqueeze(1), how.scale, visible, how.cap)
        found.append((out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)))
    return torch.cat([out for out, _ in found]), torch.cat([lse for _, lse in found])
