"""Attention of packed rows on CUDA, in Triton: over a shared prefix, and over what each row has of its own.

Two kernels. ``attend_packed`` reads tokens: each attends to the prefix and to the tokens of its row up to itself.
``attend_grown`` takes a step: each row's new token attends to its question, to its own answer and, by their
log-sum-exp, to what ``attend_packed`` made of the prefix. In both the heads of a group are queries of one head, so that
its keys are read once. Both are FlashAttention's online softmax (Dao 2023, arXiv 2307.08691, algorithm 1), in base 2.

Imported only where Triton is. Knows pointers and strides. Notation as in ``attention.py``.
"""

# ruff: noqa: N803, N806 (Triton's constants are written in capitals)
# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = 1.4426950408889634


@triton.jit
def _attend_block(
    q, factor, keys_at, values_at, loaded, seen, top, total, summed, WHOLE: tl.constexpr, MASKED: tl.constexpr
):
    """Take a block of B keys into the running softmax of M queries.

    q [M, D]; keys_at, values_at and loaded [B, D]; seen [M, B]; top, total [M] and summed [M, D] in float32.
    WHOLE: all of the block is loaded, whatever ``loaded`` says. MASKED: ``seen`` counts.
    """
    keys = tl.load(keys_at) if WHOLE else tl.load(keys_at, mask=loaded, other=0.0)
    scores = tl.dot(q, tl.trans(keys))
    if MASKED:
        scores = tl.where(seen, scores * factor, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.math.exp2(scores - level[:, None])
    else:
        higher = tl.maximum(top, tl.max(scores, 1) * factor)
        level = higher
        weights = tl.math.exp2(scores * factor - level[:, None])
    shrunk = tl.math.exp2(top - level)
    values = tl.load(values_at) if WHOLE else tl.load(values_at, mask=loaded, other=0.0)
    summed = tl.dot(weights.to(values.dtype), values, summed * shrunk[:, None])
    return higher, total * shrunk + tl.sum(weights, 1), summed


@triton.jit(do_not_specialize=["tokens", "prefix"])  # else there are four of it
def _packed_kernel(
    out, lse, query, prefix_keys, prefix_values, keys, values, row_first, tokens, prefix, factor,
    q_token, q_head, pk_token, pk_head, pv_token, pv_head, k_token, k_head, v_token, v_head,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, M: tl.constexpr, B: tl.constexpr,
    HAS_PREFIX: tl.constexpr, HAS_OWN: tl.constexpr,
):  # fmt: skip
    """A program attends from some adjacent tokens, with all heads of one group, to one head of keys."""
    ROWS: tl.constexpr = M // GROUPS
    tile, head = tl.program_id(0), tl.program_id(1)
    query_of = tl.arange(0, M)
    token = tile * ROWS + query_of // GROUPS
    here = (query_of < ROWS * GROUPS) & (token < tokens)
    q_heads = head * GROUPS + query_of % GROUPS
    column, slot = tl.arange(0, D), tl.arange(0, B)
    wide = column < WIDTH
    place = token.to(tl.int64)
    q_at = query + place[:, None] * q_token + q_heads[:, None] * q_head + column[None, :]
    q = tl.load(q_at, mask=here[:, None] & wide[None, :], other=0.0)
    top = tl.full((M,), float("-inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    summed = tl.zeros((M, D), tl.float32)
    if HAS_PREFIX:
        k_at = prefix_keys + head * pk_head + slot[:, None] * pk_token + column[None, :]
        v_at = prefix_values + head * pv_head + slot[:, None] * pv_token + column[None, :]
        whole = prefix // B * B
        for start in range(0, whole, B):
            top, total, summed = _attend_block(
                q, factor, k_at + start * pk_token, v_at + start * pv_token, wide[None, :], True, top, total, summed,
                WHOLE=WIDTH == D, MASKED=False,
            )  # fmt: skip
        if whole < prefix:
            there = whole + slot < prefix
            top, total, summed = _attend_block(
                q, factor, k_at + whole * pk_token, v_at + whole * pv_token, there[:, None] & wide[None, :],
                there[None, :], top, total, summed, WHOLE=False, MASKED=True,
            )  # fmt: skip
    if HAS_OWN:
        first = tl.load(row_first + token, mask=here, other=2147483647)
        begin, end = tl.min(first, 0), tl.minimum(tile * ROWS + ROWS, tokens)
        for start in range(begin, end, B):
            other = start + slot
            of_key = other.to(tl.int64)
            k_at = keys + head * k_head + of_key[:, None] * k_token + column[None, :]
            v_at = values + head * v_head + of_key[:, None] * v_token + column[None, :]
            seen = (other[None, :] <= token[:, None]) & (other[None, :] >= first[:, None])
            top, total, summed = _attend_block(
                q,
                factor,
                k_at,
                v_at,
                (other < end)[:, None] & wide[None, :],
                seen,
                top,
                total,
                summed,
                WHOLE=False,
                MASKED=True,
            )
    out_at = out + (place[:, None] * HEADS + q_heads[:, None]) * WIDTH + column[None, :]
    tl.store(out_at, (summed / total[:, None]).to(out.dtype.element_ty), mask=here[:, None] & wide[None, :])
    tl.store(lse + place * HEADS + q_heads, top + tl.math.log2(total), mask=here)


@triton.jit(do_not_specialize=["room"])
def _grown_kernel(
    out, query, prefix_out, prefix_lse, keys, values, own_keys, own_values,
    run_starts, key_starts, key_lengths, own_lengths, factor, q_token, q_head, room,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, M: tl.constexpr, B: tl.constexpr,
    OWN_B: tl.constexpr, HAS_PREFIX: tl.constexpr,
):  # fmt: skip
    """A program attends from the rows of one run, with all heads of one group, to one head of keys."""
    KV: tl.constexpr = HEADS // GROUPS
    run, head = tl.program_id(0), tl.program_id(1)
    first, after = tl.load(run_starts + run), tl.load(run_starts + run + 1)
    query_of = tl.arange(0, M)
    row = first + query_of // GROUPS
    here = row < after
    q_heads = head * GROUPS + query_of % GROUPS
    column, slot = tl.arange(0, D), tl.arange(0, B)
    wide = column < WIDTH
    place = row.to(tl.int64)
    queries = here[:, None] & wide[None, :]
    q = tl.load(
        query + place[:, None] * q_token + q_heads[:, None] * q_head + column[None, :],
        mask=queries,
        other=0.0,
    )
    o_at = (place[:, None] * HEADS + q_heads[:, None]) * WIDTH + column[None, :]
    if HAS_PREFIX:
        top = tl.load(prefix_lse + place * HEADS + q_heads, mask=here, other=0.0)
        total = tl.full((M,), 1.0, tl.float32)
        summed = tl.load(prefix_out + o_at, mask=queries, other=0.0).to(tl.float32)
    else:
        top = tl.full((M,), float("-inf"), tl.float32)
        total = tl.zeros((M,), tl.float32)
        summed = tl.zeros((M, D), tl.float32)
    begin, length = tl.load(key_starts + run).to(tl.int64), tl.load(key_lengths + run)
    in_cache = ((begin + slot) * KV + head)[:, None] * WIDTH + column[None, :]
    for start in range(0, length, B):
        there = start + slot < length
        step = start.to(tl.int64) * KV * WIDTH
        top, total, summed = _attend_block(
            q, factor, keys + in_cache + step, values + in_cache + step, there[:, None] & wide[None, :],
            there[None, :], top, total, summed, WHOLE=False, MASKED=True,
        )  # fmt: skip
    own_slot = tl.arange(0, OWN_B)
    own_length = tl.load(own_lengths + first)
    for of_row in range(first, after):
        base = (of_row.to(tl.int64) * room + own_slot) * KV + head
        in_own = base[:, None] * WIDTH + column[None, :]
        for start in range(0, own_length, OWN_B):
            there = start + own_slot < own_length
            step = start.to(tl.int64) * KV * WIDTH
            seen = there[None, :] & (row == of_row)[:, None]
            top, total, summed = _attend_block(
                q, factor, own_keys + in_own + step, own_values + in_own + step, there[:, None] & wide[None, :],
                seen, top, total, summed, WHOLE=False, MASKED=True,
            )  # fmt: skip
    tl.store(out + o_at, (summed / total[:, None]).to(out.dtype.element_ty), mask=queries)


def attend_packed(
    query: Tensor,
    prefix: tuple[Tensor, Tensor] | None,
    own: tuple[Tensor, Tensor] | None,
    row_first: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of N tokens to the prefix and to the tokens of their own rows, up to themselves.

    Args:
        query: [N, H, d], half precision; elements of d adjacent, as in all tensors.
        prefix: keys and values [P, K, d]; None: there are none.
        own: keys and values [N, K, d] of the same tokens; None: they are not attended to.
        row_first: [N] int32, for each token the first token of its row.
        scale: factor on the dot products.

    Returns:
        [N, H, d], and its log-sum-exp [N, H] in float32, in base 2.
    """
    tokens, heads, width = query.shape
    some = prefix or own
    assert some is not None
    keys, values = own or some
    prefix_keys, prefix_values = prefix or some
    kv_heads = keys.shape[1]
    groups, d = heads // kv_heads, max(16, triton.next_power_of_2(width))
    out = torch.empty((tokens, heads, width), dtype=query.dtype, device=query.device)
    lse = torch.empty((tokens, heads), dtype=torch.float32, device=query.device)
    is_even = groups == triton.next_power_of_2(groups)
    queries = max(128 if d < 128 and is_even else 64, triton.next_power_of_2(groups))  # measured on H100s
    with torch.cuda.device(query.device):
        _packed_kernel[(triton.cdiv(tokens, queries // groups), kv_heads)](
            out, lse, query, prefix_keys, prefix_values, keys, values, row_first, tokens,
            0 if prefix is None else len(prefix_keys), scale * _LOG2_E,
            *query.stride()[:2], *prefix_keys.stride()[:2], *prefix_values.stride()[:2],
            *keys.stride()[:2], *values.stride()[:2],
            HEADS=heads, GROUPS=groups, WIDTH=width, D=d, M=queries, B=64,
            HAS_PREFIX=prefix is not None, HAS_OWN=own is not None,
            num_warps=8 if queries > 64 or d > 128 else 4, num_stages=3 if d <= 128 else 2,
        )  # fmt: skip
    return out, lse


def attend_grown(
    query: Tensor,
    prefix: tuple[Tensor, Tensor] | None,
    questions: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    run_starts: Tensor,
    question_starts: Tensor,
    question_lengths: Tensor,
    own_lengths: Tensor,
    longest_run: int,
    scale: float,
) -> Tensor:
    """Attention of each row's new token to the prefix, its question and its own answer.

    Args:
        query: [R, H, d], half precision.
        prefix: what ``attend_packed`` gives of the prefix, with its log-sum-exp; None: there is none.
        questions: keys and values [Q, slots, K, d], contiguous.
        own: keys and values [R, room, K, d], contiguous, those of the new token among them.
        run_starts, question_starts, question_lengths, own_lengths: see `attention.GrowthTensors`.
        longest_run: most rows of a run.
        scale: factor on the dot products.

    Returns:
        [R, H, d].
    """
    rows, heads, width = query.shape
    kv_heads = own[0].shape[2]
    groups, d = heads // kv_heads, max(16, triton.next_power_of_2(width))
    out = torch.empty((rows, heads, width), dtype=query.dtype, device=query.device)
    prefix_out, prefix_lse = prefix or (out, out)
    queries = max(16, triton.next_power_of_2(longest_run * groups))
    with torch.cuda.device(query.device):
        _grown_kernel[(len(question_lengths), kv_heads)](
            out, query, prefix_out, prefix_lse, *questions, *own, run_starts, question_starts, question_lengths,
            own_lengths, scale * _LOG2_E, *query.stride()[:2], own[0].shape[1],
            HEADS=heads, GROUPS=groups, WIDTH=width, D=d, M=queries, B=64, OWN_B=16 if longest_run > 1 else 32,
            HAS_PREFIX=prefix is not None, num_warps=4 if queries <= 64 else 8, num_stages=2,
        )  # fmt: skip
    return out


@triton.jit
def _store_kernel(
    to_keys, to_values, keys, values, place, k_token, k_head, v_token, v_head,
    KV: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    target = tl.load(place + token) * KV * WIDTH
    element = tl.arange(0, N)
    here = element < KV * WIDTH
    head, column = element // WIDTH, element % WIDTH
    key = tl.load(keys + token * k_token + head * k_head + column, mask=here)
    value = tl.load(values + token * v_token + head * v_head + column, mask=here)
    tl.store(to_keys + target + element, key, mask=here)
    tl.store(to_values + target + element, value, mask=here)


def store(to_keys: Tensor, to_values: Tensor, keys: Tensor, values: Tensor, place: Tensor) -> None:
    """Write keys and values [N, K, d] to rows ``place`` [N] int64 of contiguous caches [rows, K, d]."""
    kv_heads, width = keys.shape[1:]
    with torch.cuda.device(keys.device):
        _store_kernel[(len(keys),)](
            to_keys, to_values, keys, values, place, *keys.stride()[:2], *values.stride()[:2],
            KV=kv_heads, WIDTH=width, N=triton.next_power_of_2(kv_heads * width),
        )  # fmt: skip


@triton.jit
def _likeliest_kernel(tokens, logprobs, logits, vocabulary, row_stride, B: tl.constexpr):
    """A program finds the highest logit of a row and the log-sum-exp of all in one pass over memory."""
    row = tl.program_id(0).to(tl.int64)
    best, at = tl.full((), float("-inf"), tl.float32), tl.full((), 0, tl.int32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, vocabulary, B):
        column = start + tl.arange(0, B)
        raw = tl.load(logits + row * row_stride + column, mask=column < vocabulary, other=float("-inf"))
        raw = raw.to(tl.float32)
        highest, where = tl.max(raw, 0, return_indices=True)  # the first of equals, as torch.argmax
        at = tl.where(highest > best, start + where, at)
        higher = tl.maximum(best, highest)
        total = total * tl.exp(best - higher) + tl.sum(tl.exp(raw - higher), 0)
        best = higher
    tl.store(tokens + row, at.to(tl.int64))
    tl.store(logprobs + row, -tl.log(total))


def likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest token of each row of logits [B, V], the first of equals, and its log-probability in nats: [B] each.

    Returns:
        Token ids in int64, log-probabilities in float32, summed in float32 whatever the logits' dtype.
    """
    tokens = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    with torch.cuda.device(logits.device):
        _likeliest_kernel[(len(logits),)](
            tokens, logprobs, logits, logits.shape[1], logits.stride(0), B=4096, num_warps=8
        )
    return tokens, logprobs
