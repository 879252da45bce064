"""The steps of a batch that is being decoded: each gives a token of every row, and the next begins with it.

On CUDA a step is recorded as graphs where the decoder allows it, and what was chosen comes to the host while the next
step runs. Knows decoders and devices.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probegrid.inference.choosing import choose
from probegrid.models.border import to_device

_AHEAD = 2
"""Steps the host runs ahead: while the prompts are read it takes the first step and records the second."""
_FEWEST_TO_RECORD = 4
"""Steps that are left at least where recording one is worth its time."""
_FEWEST_TO_LEAVE = 16
"""Steps that are left at least where recording again, for half the rows, is."""


class Recorded(Protocol):
    """A step that was recorded, see ``graphs.StepGraph``."""

    tokens: Tensor
    logprobs: Tensor

    def run(self) -> None:
        """Take the step."""
        ...


class Stepper(Protocol):
    """What steps need of a decoder."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to each row; logits [B, V] of the next."""
        ...

    def keep(self, rows: list[int]) -> None:
        """Keep these rows, in this order."""
        ...

    @property
    def can_be_recorded(self) -> bool:
        """Whether ``recorded`` may ever give a graph."""
        ...

    def recorded(self, tokens: Tensor, draws: Tensor | None, temperature: float) -> Recorded | None:
        """The next step as a graph, if there is one already or the decoder can be recorded by now; else None."""
        ...


class Chosen:
    """What a step chose, on its way to the host."""

    def __init__(self, tokens: Tensor, logprobs: Tensor) -> None:
        """Begin the copies of tokens [B] and log-probabilities [B], behind what the device has to do before."""
        self._done: torch.cuda.Event | None = None
        if tokens.is_cuda:
            self._tokens, self._logprobs = (_pinned_copy(each) for each in (tokens, logprobs))
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(tokens.device))
        else:
            self._tokens, self._logprobs = tokens, logprobs

    def wait(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Tokens and log-probabilities [B], once they are here."""
        if self._done is not None:
            self._done.synchronize()
        return self._tokens.numpy(), self._logprobs.numpy()


def _pinned_copy(values: Tensor) -> Tensor:
    target = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return target.copy_(values, non_blocking=True)


class Steps:
    """The steps of one batch."""

    def __init__(
        self, decoder: Stepper, logits: Tensor, draws: Tensor | None, temperature: float, most: int
    ) -> None:
        """Begin behind the prompts.

        Args:
            decoder: its rows are the batch's.
            logits: [B, V] behind the prompts.
            draws: [B, most] float64 on the CPU, see `choosing.choose`; None: every row takes the likeliest token.
            temperature: of the drawn rows.
            most: tokens of a row at most.
        """
        self._decoder, self._temperature, self._most = decoder, temperature, most
        self._draws = None if draws is None else to_device(draws, logits.device)
        self._logits: Tensor | None = logits
        self._tokens = torch.empty(0)
        self._graph: Recorded | None = None
        self.taken = 0
        """Steps so far, the first token's counted."""

    @property
    def ahead(self) -> int:
        """Steps that may be under way while the host looks at an earlier one."""
        return _AHEAD if self._decoder.can_be_recorded else 0

    def are_enough(self, gone: int, rows: int) -> bool:
        """Whether so many of so many rows leave by now: leaving copies what is left, or records the step again."""
        if self._graph is None:
            return gone >= max(1, rows // 8)
        return 2 * gone >= rows and self._most - self.taken >= _FEWEST_TO_LEAVE

    def next(self) -> Chosen:
        """Take a step."""
        if self._graph is None and self._logits is None and self._most - self.taken >= _FEWEST_TO_RECORD:
            self._graph = self._decoder.recorded(self._tokens, self._draws, self._temperature)
        self.taken += 1
        if self._graph is not None:
            self._graph.run()
            self._tokens = self._graph.tokens
            return Chosen(self._tokens, self._graph.logprobs)
        if self._logits is None:
            self._logits = self._decoder.step(self._tokens)
        draws = None if self._draws is None else self._draws[:, self.taken - 1]
        self._tokens, logprobs = choose(self._logits, draws, self._temperature)
        self._logits = None
        return Chosen(self._tokens, logprobs)

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone."""
        self._graph = None
        self._decoder.keep(rows)
        chosen = to_device(torch.tensor(rows), self._tokens.device)
        self._tokens = self._tokens[chosen]
        if self._draws is not None:
            self._draws = self._draws[chosen]
