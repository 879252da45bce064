"""Attention over parts: keys shared by every row, keys of a row's own, merged by their log-sum-exps.

Notation: N query tokens packed from several rows, H query heads, K key-value heads (H a multiple of K), d head width,
P prefix tokens, R rows, S slots of a row.

Softmax attention over a concatenation of keys equals the attention over each part, weighted by the softmax of the
parts' log-sum-exps (Hydragen, Juravsky et al. 2024, arXiv 2402.05099, eq. 4). So a prefix that all rows share is one
dense product of all queries with one copy of its keys, and each row attends to its own few tokens beside it.

Knows tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

aten = torch.ops.aten


@dataclass(frozen=True)
class Layout:
    """Which row and slot each packed token belongs to. Tokens of a row are adjacent and in order.

    Rows are those from ``first_row`` on; every one of them has at least one token.
    """

    row: Tensor
    """[N] int64: row of each token, counted from ``first_row``."""
    slot: Tensor
    """[N] int64: position of each token among its row's own tokens."""
    row_starts: Tensor
    """[rows + 1] int32: where each row's tokens begin in the packed sequence."""
    lengths: Tensor
    """[rows] int32: slots in use of each row, the tokens of this layout included."""
    first_row: int
    n_rows: int
    max_new: int
    """Most tokens any row has in this layout."""
    max_length: int
    """Largest of ``lengths``."""
    _moved: dict[torch.device, Layout] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, new_tokens: list[int], used: list[int], first_row: int = 0) -> Layout:
        """Lay out ``new_tokens[i]`` tokens for row ``first_row + i``, which has ``used[i]`` slots in use already."""
        new, old = torch.tensor(new_tokens), torch.tensor(used)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), new.cumsum(0)])
        row = torch.repeat_interleave(torch.arange(len(new_tokens)), new)
        slot = torch.arange(int(starts[-1])) - starts[row] + old[row]
        lengths = old + new
        return cls(
            row=row,
            slot=slot,
            row_starts=starts.int(),
            lengths=lengths.int(),
            first_row=first_row,
            n_rows=len(new_tokens),
            max_new=max(new_tokens),
            max_length=int(lengths.max()),
        )

    def to(self, device: torch.device) -> Layout:
        """This layout with its tensors on ``device``; copied once however many layers ask."""
        if device == self.row.device:
            return self
        if device not in self._moved:
            tensors = {
                name: getattr(self, name).to(device) for name in ("row", "slot", "row_starts", "lengths")
            }
            self._moved[device] = Layout(
                **tensors,
                first_row=self.first_row,
                n_rows=self.n_rows,
                max_new=self.max_new,
                max_length=self.max_length,
            )
        return self._moved[device]


def merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over the union of two sets of keys, from the attention over each.

    Args:
        first: output [N, H, d] and log-sum-exp [N, H] (float32) over the first set.
        second: the same over the second set.

    Returns:
        [N, H, d] in the dtype of the outputs.
    """
    (out_a, lse_a), (out_b, lse_b) = first, second
    weight = torch.sigmoid(lse_a - lse_b).unsqueeze(-1)
    return torch.lerp(out_b.float(), out_a.float(), weight).to(out_a.dtype)


def attend_all(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attend from every query to every key, no mask.

    Args:
        query: [N, H, d].
        keys, values: [P, K, d].
        scale: factor on the dot products.

    Returns:
        Output [N, H, d] in the queries' dtype, log-sum-exp [N, H] in float32.
    """
    n, heads, width = query.shape
    groups = heads // keys.shape[1]
    # grouped heads become more queries of the same key head, so that keys are never repeated
    grouped = (
        query.view(n, keys.shape[1], groups, width)
        .permute(1, 0, 2, 3)
        .reshape(1, keys.shape[1], n * groups, width)
    )
    k, v = keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0)
    out, lse = _dense(grouped, k, v, scale, causal=False)
    out = out.view(keys.shape[1], n, groups, width).permute(1, 0, 2, 3).reshape(n, heads, width)
    return out, lse.view(keys.shape[1], n, groups).permute(1, 0, 2).reshape(n, heads)


def attend_causal(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Causal attention of a sequence to itself: query [N, H, d], keys, values [N, K, d]; returns as ``attend_all``."""
    groups = query.shape[1] // keys.shape[1]
    q = query.transpose(0, 1).unsqueeze(0)
    k = keys.transpose(0, 1).repeat_interleave(groups, 0).unsqueeze(0)
    v = values.transpose(0, 1).repeat_interleave(groups, 0).unsqueeze(0)
    out, lse = _dense(q, k, v, scale, causal=True)
    return out[0].transpose(0, 1), lse[0].transpose(0, 1)


def _dense(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention [B, H, T, d] with equal heads; output and log-sum-exp [B, H, T], by the fastest kernel there is."""
    if has_flash(query):
        out, lse, *_ = aten._scaled_dot_product_flash_attention(
            query, keys, values, 0.0, causal, False, scale=scale
        )
        return out, lse
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


def has_flash(like: Tensor) -> bool:
    """Whether FlashAttention's CUDA kernels take tensors like this: half precision, compute capability from 8 on."""
    return (
        like.is_cuda
        and like.dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(like.device)[0] >= 8
    )


class RowCache:
    """Keys and values of each row's own tokens, for one layer: [R, slots, K, d]."""

    def __init__(self, n_rows: int, slots: int, like: Tensor) -> None:
        """Allocate zeros on the device and in the dtype of ``like`` [N, K, d]."""
        shape = (n_rows, slots, *like.shape[1:])
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)

    def append(self, keys: Tensor, values: Tensor, layout: Layout) -> None:
        """Store keys and values [N, K, d] at the rows and slots of the layout."""
        row = layout.row + layout.first_row
        self.keys[row, layout.slot] = keys
        self.values[row, layout.slot] = values

    def select(self, rows: Tensor) -> None:
        """Keep the given rows [R'] in the given order; a row may be named more than once."""
        self.keys = self.keys.index_select(0, rows.to(self.keys.device))
        self.values = self.values.index_select(0, rows.to(self.values.device))

    def attend(self, query: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
        """Attend from each token to its row's slots up to its own: query [N, H, d]; returns as ``attend_all``."""
        rows = slice(layout.first_row, layout.first_row + layout.n_rows)
        keys, values = self.keys[rows], self.values[rows]
        if has_flash(query):
            return _attend_rows_flash(query, keys, values, layout, scale)
        return _attend_rows_padded(query, keys, values, layout, scale)


def _attend_rows_flash(
    query: Tensor, keys: Tensor, values: Tensor, layout: Layout, scale: float
) -> tuple[Tensor, Tensor]:
    """FlashAttention over rows of different lengths, read where they lie: no padding, no repeated heads."""
    n_rows, slots = keys.shape[:2]
    key_starts = torch.arange(n_rows + 1, dtype=torch.int32, device=query.device) * slots
    out, lse, *_ = aten._flash_attention_forward(
        query.contiguous(),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        layout.row_starts,
        key_starts,
        layout.max_new,
        slots,
        0.0,
        True,
        False,
        scale=scale,
        seqused_k=layout.lengths,
    )
    return out, lse.transpose(0, 1)


def _attend_rows_padded(
    query: Tensor, keys: Tensor, values: Tensor, layout: Layout, scale: float
) -> tuple[Tensor, Tensor]:
    """The same by dense products over rows padded to the longest."""
    _, heads, width = query.shape
    kv_heads = keys.shape[2]
    groups, new, longest = heads // kv_heads, layout.max_new, layout.max_length
    column = layout.slot - (
        layout.lengths[layout.row] - (layout.row_starts[1:] - layout.row_starts[:-1])[layout.row]
    )
    padded = query.new_zeros(layout.n_rows, new, heads, width)
    padded[layout.row, column] = query
    # [R, K, new x groups, d]: grouped heads are more queries of the same key head
    q = padded.view(layout.n_rows, new, kv_heads, groups, width).permute(0, 2, 1, 3, 4).flatten(2, 3)
    k, v = keys[:, :longest].transpose(1, 2), values[:, :longest].transpose(1, 2)
    last = layout.slot.new_zeros(layout.n_rows, new)
    last[layout.row, column] = layout.slot
    visible = torch.arange(longest, device=query.device) <= last.repeat_interleave(groups, 1).unsqueeze(-1)
    if query.device.type == "cpu":
        # one pass over keys and values where they lie; written out, they would be copied to be multiplied
        mask = query.new_zeros(visible.shape).masked_fill_(~visible, float("-inf")).unsqueeze(1)
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=mask, scale=scale
        )
    else:
        out, lse = _plain(q, k, v, scale, visible.unsqueeze(1))
    out = out.view(layout.n_rows, kv_heads, new, groups, width).transpose(1, 2).flatten(2, 3)
    lse = lse.view(layout.n_rows, kv_heads, new, groups).transpose(1, 2).flatten(2, 3)
    return out[layout.row, column], lse[layout.row, column]
