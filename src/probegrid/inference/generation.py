"""The generation loop: greedy answers and samples from any decoder, with exact log-probabilities.

Knows logits, token ids and a stop rule.

Notation: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from probegrid.inference.stopping import Ending, StopRule


class Decoder(Protocol):
    """What the loop needs of a decoder; see ``shared_prefix.SharedPrefixDecoder``."""

    def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Start new rows; logits [B, V] of the token after each."""
        ...

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append a token to each row; logits [B, V] of the next."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row named several times is copied."""
        ...

    def reset(self) -> None:
        """Forget all rows and free their memory."""
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer as it was generated."""

    token_ids: tuple[int, ...]
    """Tokens of the answer, by the stop rule's policy."""
    token_logprobs: tuple[float, ...]
    """Natural-log probability of each of them at temperature 1, from the raw logits, float32."""
    text: str
    """The answer, up to the stop, without surrounding white space."""
    steps: int
    """Tokens generated, those of the stop included."""
    first_entropy: float
    """Shannon entropy in nats of the distribution of the first token, at temperature 1."""
    first_logprob: float
    """Natural-log probability of the first token that was generated, were it a stop: all there is of an answer that
    ends at once."""
    ended: str
    """``stop``, ``eos`` or ``length``; ``empty`` for an answer without text, however it ended."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many samples are drawn beside the greedy answer, and how."""

    count: int = 0
    temperature: float = 1.0
    seed: int = 0

    def uniforms(self, key: str, sample: int, steps: int) -> list[float]:
        """The draws in [0, 1) of one sample; its own stream, whatever the batch it is drawn in."""
        digest = hashlib.sha256(f"{self.seed}/{key}/{sample}".encode()).digest()
        stream = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
        draws: list[float] = stream.random(steps).tolist()
        return draws


@dataclass(slots=True)
class _Row:
    """A row of the batch while it grows."""

    prompt: int
    draws: list[float] | None
    first_entropy: float
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ending: Ending | None = None

    def result(self) -> Generation:
        assert self.ending is not None
        kept = self.ending.kept
        return Generation(
            tuple(self.ids[:kept]),
            tuple(self.logprobs[:kept]),
            self.ending.text,
            len(self.ids),
            self.first_entropy,
            self.logprobs[0],
            self.ending.by if self.ending.text else "empty",
        )


def generate(
    decoder: Decoder,
    suffixes: Sequence[Sequence[int]],
    keys: Sequence[str],
    rule: StopRule,
    *,
    max_new_tokens: int,
    sampling: Sampling,
) -> list[list[Generation]]:
    """Answer each prompt: the greedy answer first, then the samples, all from one prefill.

    Args:
        decoder: holds what precedes the suffixes.
        suffixes: token ids of each prompt, after the decoder's prefix.
        keys: a name for each prompt, which seeds its samples.
        rule: where an answer ends.
        max_new_tokens: longest answer.
        sampling: samples beside the greedy answer.

    Returns:
        For each prompt, ``1 + sampling.count`` generations.
    """
    logits = decoder.prefill(suffixes, room=max_new_tokens)
    copies = 1 + sampling.count
    entropies = _entropy(logits)
    rows = [
        _Row(prompt, sampling.uniforms(key, copy, max_new_tokens) if copy else None, entropies[prompt])
        for prompt, key in enumerate(keys)
        for copy in range(copies)
    ]
    if sampling.count:
        order = [row.prompt for row in rows]
        decoder.keep(order)
        logits = logits[torch.tensor(order, device=logits.device)]
    batch = rows
    while True:
        _extend(batch, logits, rule, max_new_tokens, sampling.temperature)
        alive = [index for index, row in enumerate(batch) if row.ending is None]
        if not alive:
            break
        if len(batch) - len(alive) >= max(
            1, len(batch) // 8
        ):  # rows leave in groups: each leaving copies the cache once
            decoder.keep(alive)
            batch = [batch[index] for index in alive]
        logits = decoder.step([row.ids[-1] for row in batch])
    answers: list[list[Generation]] = [[] for _ in suffixes]
    for row in rows:
        answers[row.prompt].append(row.result())
    return answers


def _extend(batch: list[_Row], logits: Tensor, rule: StopRule, most: int, temperature: float) -> None:
    """Choose the next token of every row and note whether it ends the row."""
    draws = [
        row.draws[len(row.ids)] if row.draws is not None and row.ending is None else None for row in batch
    ]
    tokens, logprobs = choose(logits, draws, temperature)
    for row, token, logprob in zip(batch, tokens, logprobs, strict=True):
        if row.ending is not None:  # steps on with its last token until it leaves
            continue
        row.ids.append(token)
        row.logprobs.append(logprob)
        row.ending = rule.ending(row.ids)
        if row.ending is None and len(row.ids) == most:
            row.ending = rule.cut_short(row.ids)


def choose(
    logits: Tensor, draws: Sequence[float | None], temperature: float
) -> tuple[list[int], list[float]]:
    """Choose a token of each row: the most likely where the draw is None, else by inverting the distribution function.

    Args:
        logits: [B, V], raw, in the model's dtype.
        draws: B numbers in [0, 1), or None.
        temperature: softmax temperature of the drawn rows.

    Returns:
        Token ids, and their log-probabilities at temperature 1 in nats.
    """
    tokens: list[int] = []
    logprobs: list[float] = []
    for block, some in _blocks(logits, draws):
        raw = block.float()
        chosen = raw.argmax(-1)
        drawn = [index for index, draw in enumerate(some) if draw is not None]
        if drawn:
            where = torch.tensor(drawn, device=raw.device)
            level = torch.tensor([[some[index]] for index in drawn], device=raw.device, dtype=torch.float64)
            cumulative = (raw[where] / temperature).softmax(-1, dtype=torch.float64).cumsum(-1)
            picked = torch.searchsorted(cumulative, level * cumulative[:, -1:], right=True)
            chosen[where] = picked.squeeze(-1).clamp(max=raw.shape[-1] - 1)
        logprob = raw.gather(-1, chosen.unsqueeze(-1)).squeeze(-1) - raw.logsumexp(-1)
        tokens += chosen.tolist()
        logprobs += logprob.tolist()
    return tokens, logprobs


def logprobs_of(logits: Tensor, token_ids: Sequence[int]) -> list[list[float]]:
    """Log-probabilities at temperature 1, in nats, of some tokens by each row of logits [B, V]: a list a row."""
    columns = torch.tensor(token_ids, device=logits.device)
    found: list[list[float]] = []
    for block, _ in _blocks(logits, [None] * len(logits)):
        raw = block.float()
        found += (raw[:, columns] - raw.logsumexp(-1, keepdim=True)).tolist()
    return found


def continuation_logprobs(
    decoder: Decoder, suffixes: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
) -> list[list[list[float]]]:
    """Log-probabilities of the tokens of each prompt's continuations, each prompt read once for all of its own.

    Args:
        decoder: reads them.
        suffixes: the prompts.
        continuations: of each prompt, the token ids of each continuation, at least one token.

    Returns:
        For each prompt, of each continuation, of each token: natural, at temperature 1.
    """
    rows = [(place, tokens) for place, each in enumerate(continuations) for tokens in each]
    longest = max(len(tokens) for _, tokens in rows)
    logits = decoder.prefill(suffixes, room=longest)
    places = [place for place, _ in rows]
    decoder.keep(places)
    logits = logits[torch.tensor(places, device=logits.device)]
    found: list[list[float]] = [[] for _ in rows]
    for step in range(longest):
        # a continuation that has ended goes on with its last token, of which nothing is kept
        tokens = [one[min(step, len(one) - 1)] for _, one in rows]
        for row, logprob in enumerate(_logprob_of_each(logits, tokens)):
            if step < len(rows[row][1]):
                found[row].append(logprob)
        if step + 1 < longest:
            logits = decoder.step(tokens)
    each = iter(found)
    return [[next(each) for _ in options] for options in continuations]


def _logprob_of_each(logits: Tensor, tokens: Sequence[int]) -> list[float]:
    """Log-probability of one token by each row of logits [B, V]."""
    found: list[float] = []
    for block, chosen in _blocks(logits, list(tokens)):
        raw = block.float()
        columns = torch.tensor(chosen, device=raw.device)[:, None]
        found += (raw.gather(-1, columns) - raw.logsumexp(-1, keepdim=True))[:, 0].tolist()
    return found


def _entropy(logits: Tensor) -> list[float]:
    """Shannon entropy in nats of the softmax of each row of logits [B, V]."""
    entropies: list[float] = []
    for block, _ in _blocks(logits, [None] * len(logits)):
        logprob = block.float().log_softmax(-1)
        entropies += (-(logprob.exp() * logprob).sum(-1)).tolist()
    return entropies


def _blocks(
    logits: Tensor, draws: Sequence[float | None], rows: int = 128
) -> list[tuple[Tensor, Sequence[float | None]]]:
    """Cut the batch so that no float32 copy of all its logits is ever held."""
    return [
        (logits[start : start + rows], draws[start : start + rows]) for start in range(0, len(logits), rows)
    ]
