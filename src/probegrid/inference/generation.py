"""The generation loop: greedy answers and samples from any decoder, with exact log-probabilities.

Knows steps, token ids and a stop rule.

Notation: B rows, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probegrid.inference.choosing import entropy, logprob_of_each
from probegrid.inference.steps import Chosen, Stepper, Steps
from probegrid.inference.stopping import Ending, StopRule
from probegrid.models.border import to_device


class Decoder(Stepper, Protocol):
    """What the loop needs of a decoder besides its steps; see ``shared_prefix.SharedPrefixDecoder``."""

    def lanes(self, rows: int) -> Sequence[Decoder]:
        """Decoders for the groups that so many rows are best divided into."""
        ...

    def advance(self, lanes: Sequence[Callable[[], None]]) -> None:
        """Let some of these groups take a step each."""
        ...

    def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Start new rows; logits [B, V] of the token after each."""
        ...

    def step(self, tokens: Sequence[int] | Tensor) -> Tensor:
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
    """``stop``, ``eos`` or ``length``; ``empty`` for an answer without text, however it ended; ``length`` also for a
    thought that was cut off, behind which there is no answer."""
    thinking_ids: tuple[int, ...] = ()
    """Tokens of the thought before it, marks included: they stand between the prompt and the answer."""
    thinking: str | None = None
    """The thought; None: there was none."""

    @property
    def is_given(self) -> bool:
        """Whether there is an answer, be it empty: behind a thought that did not end there is none."""
        return self.thinking is None or not math.isnan(self.first_logprob)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many samples are drawn beside the greedy answer, and how."""

    count: int = 0
    temperature: float = 1.0
    seed: int = 0

    def draws(self, keys: Sequence[str], steps: int) -> Tensor | None:
        """What decides the tokens of every row: the greedy answer and the samples of each prompt, prompt by prompt.

        Returns:
            [prompts x (1 + count), steps] float64: NaN for a greedy answer, for a sample numbers in [0, 1) of a stream
            of its own, whatever the batch it is drawn in. None where no samples are drawn.
        """
        if not self.count:
            return None
        drawn = np.full((len(keys), 1 + self.count, steps), np.nan)
        for prompt, key in enumerate(keys):
            for sample in range(1, 1 + self.count):
                digest = hashlib.sha256(f"{self.seed}/{key}/{sample}".encode()).digest()
                drawn[prompt, sample] = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32)).random(
                    steps
                )
        return torch.from_numpy(drawn.reshape(-1, steps))


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
    decoders = decoder.lanes(len(suffixes))
    ends = [round(part * len(suffixes) / len(decoders)) for part in range(len(decoders) + 1)]
    lanes = [
        _Lane(each, suffixes[start:end], keys[start:end], rule, max_new_tokens, sampling)
        for each, start, end in zip(decoders, ends, ends[1:], strict=False)
    ]
    while goes_on := [lane.advance for lane in lanes if lane.open]:
        decoder.advance(goes_on)
    return [answers for lane in lanes for answers in lane.results()]


class _Lane:
    """Rows that step together, and what the host knows of them; several lanes take their steps in turn."""

    def __init__(
        self,
        decoder: Decoder,
        suffixes: Sequence[Sequence[int]],
        keys: Sequence[str],
        rule: StopRule,
        most: int,
        sampling: Sampling,
    ) -> None:
        """Read the prompts."""
        self._rule, self._most, self._copies = rule, most, 1 + sampling.count
        logits = decoder.prefill(suffixes, room=most)
        self._entropies = entropy(logits)
        if sampling.count:
            order = [prompt for prompt in range(len(keys)) for _ in range(self._copies)]
            decoder.keep(order)
            logits = logits[to_device(torch.tensor(order), logits.device)]
        rows = len(keys) * self._copies
        self._steps = Steps(decoder, logits, sampling.draws(keys, most), sampling.temperature, most)
        self._ids = np.zeros((rows, most), dtype=np.int64)
        self._logprobs = np.zeros((rows, most), dtype=np.float32)
        self._endings: list[Ending | None] = [None] * rows
        self._goes_on = np.ones(rows, dtype=np.bool_)
        self._taken = np.zeros(rows, dtype=np.int64)
        """Tokens of each row, those of its stop included."""
        self._batch = np.arange(rows)
        """The row of each place in the decoder's batch."""
        self._pending: deque[tuple[NDArray[np.int64], Chosen]] = deque()

    @property
    def open(self) -> bool:
        """Whether some row goes on."""
        return bool(self._goes_on.any())

    def advance(self) -> None:
        """Take a step, and note what an earlier one chose as soon as the host has run ahead far enough."""
        may_step = self._steps.taken < self._most
        if may_step:
            self._pending.append((self._batch, self._steps.next()))
        if not may_step or len(self._pending) > self._steps.ahead:
            batch, chosen = self._pending.popleft()
            self._note(batch, *chosen.wait())
            self._leave()

    def _note(
        self, batch: NDArray[np.int64], tokens: NDArray[np.int64], logprobs: NDArray[np.float32]
    ) -> None:
        """Take down the tokens of the rows that go on, and whether they end them."""
        goes_on = self._goes_on[batch]
        rows, tokens = batch[goes_on], tokens[goes_on]
        self._ids[rows, self._taken[rows]] = tokens
        self._logprobs[rows, self._taken[rows]] = logprobs[goes_on]
        self._taken[rows] += 1
        for row in rows[self._rule.may_end(tokens)].tolist():
            self._endings[row] = self._rule.ending(self._ids[row, : self._taken[row]].tolist())
            self._goes_on[row] = self._endings[row] is None
        for row in rows[self._goes_on[rows] & (self._taken[rows] == self._most)].tolist():
            self._endings[row] = self._rule.cut_short(self._ids[row].tolist())
            self._goes_on[row] = False

    def _leave(self) -> None:
        """Rows that ended step on with the others until enough of them leave together."""
        alive = np.flatnonzero(self._goes_on[self._batch])
        if len(alive) and self._steps.are_enough(len(self._batch) - len(alive), len(self._batch)):
            self._steps.keep(alive.tolist())
            self._batch = self._batch[alive]

    def results(self) -> list[list[Generation]]:
        """The generations of each prompt."""
        entropies = self._entropies.tolist()
        rows = [self._result(row, entropies[row // self._copies]) for row in range(len(self._endings))]
        return [rows[start : start + self._copies] for start in range(0, len(rows), self._copies)]

    def _result(self, row: int, first_entropy: float) -> Generation:
        ending, steps = self._endings[row], int(self._taken[row])
        assert ending is not None
        return Generation(
            tuple(self._ids[row, : ending.kept].tolist()),
            tuple(self._logprobs[row, : ending.kept].tolist()),
            ending.text,
            steps,
            first_entropy,
            float(self._logprobs[row, 0]),
            ending.by if ending.text else "empty",
        )


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
    # one that has ended goes on with its last token, of which nothing is kept
    given = torch.tensor([[one[min(step, len(one) - 1)] for step in range(longest)] for _, one in rows])
    logits = decoder.prefill(suffixes, room=longest)
    places = [place for place, _ in rows]
    decoder.keep(places)
    logits = logits[to_device(torch.tensor(places), logits.device)]
    of_steps: list[Tensor] = []
    for step in range(longest):
        of_steps.append(logprob_of_each(logits, to_device(given[:, step], logits.device)))
        if step + 1 < longest:
            logits = decoder.step(given[:, step])
    found = torch.stack(of_steps, 1).tolist()
    each = iter([found[row][: len(tokens)] for row, (_, tokens) in enumerate(rows)])
    return [[next(each) for _ in options] for options in continuations]
