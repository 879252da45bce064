"""What is kept of the distributions of given tokens, and of the attention between them: read again, step by step.

Answers are read again rather than measured while they are generated: a step of generation is recorded, bound by memory,
and of all samples, where only the greedy answer's distributions are asked for. Knows decoders and logits.

Notation: R rows, V vocabulary, H heads, k likeliest tokens that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probegrid.inference.attention import Part, attend_all
from probegrid.models.border import to_device

if TYPE_CHECKING:
    from probegrid.inference.attention import RowCache, Softmax
    from probegrid.inference.generation import Decoder
    from probegrid.inference.layout import Growth

LIKELIEST = 10
"""Tokens that are kept of each distribution."""
_ROWS = 128


@dataclass(frozen=True)
class Distributions:
    """The distributions of the T tokens of one answer, reduced; float32 on the CPU.

    Attributes:
        entropies: [T], nats.
        divergences: [T], of the uniform distribution from each, nats.
        top_ids: [T, k] int64.
        top_logprobs: [T, k], falling.
        vocabulary: V.
        layers: whose attention was watched.
        attention: [layers, T - 1], of the head with the greatest mean: weight that the step which writes a token gives
            to the token before it. None where attention is not at hand.
        middle_attention: [T - 1], mean over heads of the logarithm of the same in the middle layer; None likewise.
    """

    entropies: Tensor
    divergences: Tensor
    top_ids: Tensor
    top_logprobs: Tensor
    vocabulary: int
    layers: tuple[int, ...] = ()
    attention: Tensor | None = None
    middle_attention: Tensor | None = None


def watched_layers(blocks: int) -> tuple[int, ...]:
    """The middle third of the blocks, ends included, counted from 0 (RAUQ, Vazhentsev et al. 2025)."""
    return tuple(range(blocks // 3, min(blocks - 1, -(-2 * blocks // 3)) + 1))


@dataclass
class Watcher:
    """Notes how much each step attends to the token it reads; a decoder shows it every watched layer of every step."""

    blocks: int
    layers: tuple[int, ...] = field(init=False)
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    """By layer, of each step [R, H] float32 on the CPU."""
    is_known: bool = True
    """Whether all that was seen is plain attention, whose weights are known."""
    deepest: int = -1
    """Of the layers that were shown: blocks that attend twice, or not at all, make others of them."""

    def __post_init__(self) -> None:
        self.layers = watched_layers(self.blocks)

    def note(self, layer: int, *, is_plain: bool) -> None:
        """Hear of a layer that attends in whatever pass; ``is_plain``: by one softmax over all keys up to its own."""
        self.deepest = max(self.deepest, layer)
        self.is_known &= is_plain

    def see(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        growth: Growth,
        questions: RowCache,
        own: RowCache,
        prefix: tuple[Tensor, Tensor] | None,
        how: Softmax,
    ) -> None:
        """Keep a step's attention to its own token: query [R, H, d], key [R, K, d], kept in ``own`` already."""
        if layer not in self.layers or not self.is_known:
            return
        parts: list[Part] = [] if prefix is None else [attend_all(query, *prefix, how.scale)]
        parts += [questions.attend_question(query, growth, how), own.attend_grown(query, growth, how)]
        total = torch.stack([lse for _, lse in parts]).logsumexp(0)
        grouped = query.unflatten(1, (key.shape[1], -1)).float()
        to_itself = (grouped * key.float().unsqueeze(2)).sum(-1) * how.scale
        self.weights.setdefault(layer, []).append((to_itself - total).exp().flatten(1).cpu())

    def take(self, lengths: Sequence[int]) -> list[tuple[Tensor, Tensor]] | None:
        """Of each row of so many tokens, `Distributions.attention` and ``middle_attention``; forgets the steps.

        None where the attention is not that of one plain softmax a block.
        """
        if not self.is_known or self.deepest != self.blocks - 1:
            self.weights = {}
            return None
        found = []
        stacked = {layer: torch.stack(steps) for layer, steps in self.weights.items()}  # [steps, R, H]
        for row, length in enumerate(lengths):
            chosen = []
            for layer in self.layers:
                of_row = stacked[layer][: length - 1, row] if length > 1 else torch.empty(0, 1)
                head = int(of_row.mean(0).argmax()) if length > 1 else 0
                chosen.append(of_row[:, head])
            middle = stacked[self.blocks // 2][: length - 1, row] if length > 1 else torch.ones(0, 1)
            found.append((torch.stack(chosen), (middle + 1e-12).log().mean(1)))
        self.weights = {}
        return found


def distributions(
    decoder: Decoder,
    suffixes: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    watcher: Watcher | None,
) -> list[Distributions]:
    """The distributions of each prompt's answer, by feeding it the answer's tokens.

    Args:
        decoder: reads them; it shows its steps to the watcher.
        suffixes: the prompts, after the decoder's prefix.
        answers: token ids of each; of one without any, the distribution of its stop is given.
        watcher: of attention; None: it is not at hand.
    """
    lengths = [max(1, len(answer)) for answer in answers]
    longest = max(lengths)
    # one that has ended goes on with its last token, of which nothing is kept
    given = torch.tensor(
        [[one[min(step, len(one) - 1)] if one else 0 for step in range(longest)] for one in answers]
    )
    logits = decoder.prefill(suffixes, room=longest)
    steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for step in range(longest):
        steps.append(_reduced(logits))
        if step + 1 < longest:
            logits = decoder.step(to_device(given[:, step], logits.device))
    entropies, divergences, ids, logprobs = (torch.stack(each, 1) for each in zip(*steps, strict=True))
    watched = None if watcher is None else watcher.take(lengths)
    return [
        Distributions(
            entropies[row, :length],
            divergences[row, :length],
            ids[row, :length],
            logprobs[row, :length],
            logits.shape[-1],
            *(() if watched is None or watcher is None else (watcher.layers, *watched[row])),
        )
        for row, length in enumerate(lengths)
    ]


def _reduced(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Entropies [R], divergences [R], likeliest tokens [R, k] and their log-probabilities, on the CPU."""
    found: list[tuple[Tensor, ...]] = []
    for start in range(0, len(logits), _ROWS):  # no float32 copy of all logits is ever held
        logprob = logits[start : start + _ROWS].float().log_softmax(-1)
        possible = logprob > float("-inf")  # ids that no token has are masked in some models
        finite = logprob.masked_fill(~possible, 0.0)
        count = possible.sum(-1)
        top = logprob.topk(min(LIKELIEST, logprob.shape[-1]), dim=-1)
        found.append(
            (
                -(finite.exp().masked_fill(~possible, 0.0) * finite).sum(-1),
                -finite.sum(-1) / count - count.float().log(),
                top.indices,
                top.values,
            )
        )
    entropies, divergences, ids, logprobs = (torch.cat(each).cpu() for each in zip(*found, strict=True))
    return entropies, divergences, ids, logprobs
