"""Which token comes next: the most likely one, or one drawn; with its log-probability, all on the logits' device.

Nothing here waits for a device, so that a step may be part of a CUDA graph. Knows logits.

Notation: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from probegrid.inference.attention import has_kernels

_ROWS = 128
"""Rows whose logits are held in float32 at once."""
_WIDEST_CHUNK = 1024
"""Largest part of the vocabulary that is searched token by token for a draw."""


def choose(logits: Tensor, draws: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """Choose a token of each row: the most likely where there is no draw, else by inverting the distribution function.

    Args:
        logits: [B, V], raw, in the model's dtype.
        draws: [B] float64 in [0, 1), NaN where a row takes the most likely token; None: all do.
        temperature: softmax temperature of the drawn rows.

    Returns:
        Token ids [B] int64, and their log-probabilities [B] at temperature 1 in nats, float32.
    """
    if draws is None and has_kernels(logits):
        from probegrid.inference.kernels import likeliest

        return likeliest(logits)
    chosen = logits.new_empty(len(logits), dtype=torch.int64)
    logprobs = logits.new_empty(len(logits), dtype=torch.float32)
    for rows in _row_blocks(len(logits)):
        raw = logits[rows].float()
        likeliest = raw.argmax(-1)
        if draws is None:
            chosen[rows] = likeliest
        else:
            drawn = _invert(raw / temperature, draws[rows])
            chosen[rows] = torch.where(draws[rows].isnan(), likeliest, drawn)
        logprobs[rows] = raw.gather(-1, chosen[rows].unsqueeze(-1)).squeeze(-1) - raw.logsumexp(-1)
    return chosen, logprobs


def _invert(scaled: Tensor, draws: Tensor) -> Tensor:
    """The first token at which the distribution function passes the draw.

    The function is summed in float64 over chunks of the vocabulary, and token by token within the chunk that is hit.

    Args:
        scaled: [B, V] float32, logits at the temperature.
        draws: [B] float64; what comes of NaN is not used.

    Returns:
        [B] int64.
    """
    vocabulary = scaled.shape[-1]
    width = _chunk_width(vocabulary)
    weights = (scaled - scaled.amax(-1, keepdim=True)).exp_().unflatten(-1, (-1, width))
    until = weights.sum(-1, dtype=torch.float64).cumsum(-1)
    level = draws.nan_to_num(0.0).unsqueeze(-1) * until[:, -1:]
    chunk = torch.searchsorted(until, level, right=True).clamp_(max=vocabulary // width - 1)
    before = torch.where(chunk > 0, until.gather(-1, (chunk - 1).clamp(min=0)), 0.0)
    within = weights.gather(1, chunk.unsqueeze(-1).expand(-1, -1, width)).squeeze(1)
    reached = before + within.cumsum(-1, dtype=torch.float64)
    token = torch.searchsorted(reached, level, right=True).clamp_(max=width - 1)
    return (chunk * width + token).squeeze(-1)


def _chunk_width(vocabulary: int) -> int:
    """The largest divisor of the vocabulary that is short enough; all of it where none of a useful size is."""
    widths = [width for width in range(64, _WIDEST_CHUNK + 1) if vocabulary % width == 0]
    return max(widths, default=vocabulary)


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of the softmax of each row of logits [B, V]: [B] float32."""

    def of_rows(raw: Tensor) -> Tensor:
        logprob = raw.log_softmax(-1)
        return -(logprob.exp() * logprob).sum(-1)

    return _in_row_blocks(logits, of_rows)


def logprob_of_each(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability at temperature 1, in nats, of one token [B] by each row of logits [B, V]: [B] float32."""
    found = logits.new_empty(len(logits), dtype=torch.float32)
    for rows in _row_blocks(len(logits)):
        raw = logits[rows].float()
        found[rows] = raw.gather(-1, tokens[rows].unsqueeze(-1)).squeeze(-1) - raw.logsumexp(-1)
    return found


def logprobs_of(logits: Tensor, token_ids: Sequence[int]) -> Tensor:
    """Log-probabilities at temperature 1, in nats, of n tokens by each row of logits [B, V]: [B, n] float32."""
    columns = torch.tensor(token_ids, device=logits.device)
    return _in_row_blocks(logits, lambda raw: raw[:, columns] - raw.logsumexp(-1, keepdim=True))


def _in_row_blocks(logits: Tensor, of_rows: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([of_rows(logits[rows].float()) for rows in _row_blocks(len(logits))])


def _row_blocks(count: int) -> Iterator[slice]:
    """Cut the batch so that no float32 copy of all its logits is ever held."""
    for start in range(0, count, _ROWS):
        yield slice(start, min(start + _ROWS, count))
