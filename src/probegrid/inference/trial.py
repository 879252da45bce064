"""A few prompts through a decoder and through the model's own forward pass, one row at a time: are they the same?

What a decoder makes of a model is believed where the log-probabilities of what it generates are those that the plain
pass gives the same tokens, up to rounding, which is measured on the model itself where it is large. So no list of
families decides what is right. Knows decoders, and the plain forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.inference.generation import Decoder, Generation, Sampling, generate
from probegrid.inference.outcome import Outcome, Report
from probegrid.inference.packed import give_back_attention
from probegrid.inference.plain import logits_from_one_prefix, plain_logits
from probegrid.inference.reasons import Unfit, why_it_failed
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.models.quantization import product_dtype, rounds_together

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

STEPS = 6
"""Tokens that are generated behind each prompt: enough that steps are recorded, where they can be."""
PROMPTS = 2
"""The shortest and the longest."""
ROUNDING = {torch.float32: 5e-5, torch.float16: 0.02, torch.bfloat16: 0.06}
"""Nats that are rounding in each type whatever the model."""
_TIMES = 8
"""A decoder's distance from the plain pass may be so many times that of the plain pass from itself, its attention
written out."""
_MOST = {torch.float32: 0.02, torch.float16: 0.2, torch.bfloat16: 0.5}
"""Nats beyond which nothing is rounding: PaliGemma's two kinds of attention are 1 apart, for one sees what follows."""
_MOST_TOGETHER = 0.5
"""The same where rounding depends on all tokens of a pass."""
_CAUSAL = 0.005
"""Nats by which the plain pass may differ from itself on rows that end earlier, which other kernels may read."""
_CAUSAL_TOGETHER = 0.5
"""The same where rounding depends on all of a pass's tokens: it may send one to another expert."""
_TRIED = "_probegrid_tried"
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    Unfit,
    ValueError,
)
"""What a model's code raises where a decoder calls it as it was not meant to be."""


class Trial:
    """Some prompts of a reading, the same for every decoder that is tried."""

    def __init__(
        self, model: PreTrainedModel, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], rule: StopRule
    ) -> None:
        """Choose the prompts.

        Args:
            model: as it is used, quantized or not.
            prefix: token ids that every prompt begins with.
            suffixes: what follows, of each prompt of the reading.
            rule: one that ends nothing.
        """
        by_length = sorted(range(len(suffixes)), key=lambda index: (len(suffixes[index]), index))
        chosen = dict.fromkeys([by_length[0], by_length[-1]]) if by_length else {}
        self.suffixes = [list(suffixes[index]) for index in chosen]
        self.model, self._prefix, self._rule = model, list(prefix), rule
        self._first: Tensor | None = None
        self._read: dict[tuple[int, ...], Tensor] = {}
        """What the plain pass gave, by an answer's prompt and its tokens: ways that agree ask again."""

    @property
    def _longest(self) -> int:
        return len(self._prefix) + max(map(len, self.suffixes), default=0)

    @property
    def causal(self) -> float:
        """Nats by which the plain pass may differ from itself on rows that end earlier."""
        return _CAUSAL_TOGETHER if rounds_together(self.model) else _CAUSAL

    def known(self, steps: int, sampling: Sampling) -> Report | None:
        """What a trial of the same model said, of prompts as long as these and as many steps; None where none did."""
        done, report = getattr(self.model, _TRIED, ((), None))
        wanted = (self._longest, min(STEPS, steps), min(1, sampling.count))
        return report if done and all(one <= other for one, other in zip(wanted, done, strict=True)) else None

    def remember(self, report: Report, steps: int, sampling: Sampling) -> None:
        """Keep what was found with the model, as long as it is in memory."""
        setattr(self.model, _TRIED, ((self._longest, min(STEPS, steps), min(1, sampling.count)), report))

    def look_before_fusing(self) -> None:
        """Keep what the model's own code gives behind the longest prompt, before kernels of others take its place.

        They compute each token by itself: one row shows what is wrong with them.
        """
        if self.suffixes:
            longest = [*self._prefix, *self.suffixes[-1]]
            self._first = or_none_if_out_of_memory(lambda: self._plain(longest, 1)[0])

    def of(self, decoder: Decoder, *, steps: int, sampling: Sampling) -> Outcome | None:
        """Try a decoder, its steps and a sample too; None where memory is too small for the plain pass.

        Raises:
            one of ``FAILURES``: the decoder cannot read this model.
        """
        sampling = Sampling(min(1, sampling.count), sampling.temperature, sampling.seed)
        keys = [f"trial {index}" for index in range(len(self.suffixes))]
        found = generate(
            decoder,
            self.suffixes,
            keys,
            self._rule,
            max_new_tokens=max(1, min(STEPS, steps)),
            sampling=sampling,
        )
        decoder.reset()
        # other ways go on from the model's own cache themselves
        may_share = isinstance(decoder, SharedPrefixDecoder)
        return or_none_if_out_of_memory(lambda: self._compare(found, may_share=may_share))

    def _compare(self, found: Sequence[Sequence[Generation]], *, may_share: bool) -> Outcome | None:
        own = self.model.config._attn_implementation
        give_back_attention(self.model)
        try:
            rows = [
                _Row(place, generation, is_greedy=sample == 0)
                for place, each in enumerate(found)
                for sample, generation in enumerate(each)
            ]
            allowed = ROUNDING[product_dtype(self.model)]
            if may_share and (shared := self._from_one_prefix(rows)) is not None:
                distance = max(self._distances(rows, shared))
                if distance <= allowed:
                    return Outcome(distance, allowed)
            plain = [self._logprobs(row) for row in rows]
            if not all(map(_is_sound, plain)):
                # the model's own pass overflows, which the reading itself refuses
                return Outcome(0.0, math.inf)
            distances = self._distances(rows, plain)
            distance = max(distances)
            if allowed < distance < math.inf:
                allowed = max(allowed, self._rounding(rows, plain, distances))
            return Outcome(distance, allowed)
        finally:
            self.model.set_attn_implementation(own)

    def _from_one_prefix(self, rows: Sequence[_Row]) -> list[Tensor] | None:
        """What the plain pass gives with the prefix computed once, where that is most of it; None: it is not known."""
        if len(self._prefix) <= max(map(len, self.suffixes)):
            return None
        longest_first = sorted(range(len(rows)), key=lambda index: -rows[index].place)
        asked = [(self._tokens(rows[index]), len(rows[index].tokens)) for index in longest_first]
        try:
            read = logits_from_one_prefix(self.model, len(self._prefix), asked)
        except FAILURES:
            return None
        if read is None:
            return None
        by_row = {
            index: logits.log_softmax(-1).cpu() for index, logits in zip(longest_first, read, strict=True)
        }
        found = [by_row[index] for index in range(len(rows))]
        return found if all(map(_is_sound, found)) else None

    def _distances(self, rows: Sequence[_Row], plain: Sequence[Tensor]) -> list[float]:
        """How far each row is from what the plain pass gives, and from what it gave before fusing."""
        found = [_distance(each, row) for row, each in zip(rows, plain, strict=True)]
        if self._first is None:
            return found
        last = len(self.suffixes) - 1
        return [
            max(each, self._from_first(row)) if row.place == last else each
            for row, each in zip(rows, found, strict=True)
        ]

    def _from_first(self, row: _Row) -> float:
        assert self._first is not None
        return abs(float(self._first[row.tokens[0]]) - row.generation.token_logprobs[0])

    def _tokens(self, row: _Row) -> list[int]:
        """Of a row, as far as the plain pass has to read it."""
        return [*self._prefix, *self.suffixes[row.place], *row.tokens[:-1]]

    def _logprobs(self, row: _Row) -> Tensor:
        """What the plain pass gives for every token of an answer: [T, V] float32 on the CPU."""
        key = (row.place, *row.tokens)
        if key not in self._read:
            self._read[key] = self._plain(self._tokens(row), len(row.tokens))
        return self._read[key]

    def _plain(self, row: Sequence[int], last: int) -> Tensor:
        """Log-probabilities behind each of the last tokens of one row: [last, V] float32 on the CPU."""
        return plain_logits(self.model, row, last).log_softmax(-1).cpu()

    def _rounding(self, rows: Sequence[_Row], plain: Sequence[Tensor], distances: Sequence[float]) -> float:
        """What is rounding on this model: the farthest rows first, until it explains them all."""
        found, company = 0.0, rounds_together(self.model)
        for index in sorted(range(len(rows)), key=lambda index: -distances[index]):
            if company:
                found = max(found, _TIMES * self._in_company(rows[index], plain[index]))
            found = max(found, _TIMES * self._written_out(rows[index], plain[index]))
            if max(distances) <= found:
                break
        return min(found, _MOST_TOGETHER if company else _MOST[product_dtype(self.model)])

    def _in_company(self, row: _Row, alone: Tensor) -> float:
        """How far the plain pass of a row is from that of the row with another's tokens behind it."""
        others = self.suffixes[row.place - 1]
        asked = len(row.tokens)
        together = self._plain([*self._tokens(row), *others], asked + len(others))[:asked]
        return _apart(alone, together, row)

    def _written_out(self, row: _Row, plain: Tensor) -> float:
        """How far the plain pass of a row is from itself with its attention written out."""
        before = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            again = self._plain(self._tokens(row), len(row.tokens))
        except FAILURES:
            return 0.0
        finally:
            self.model.set_attn_implementation(before)
        return _apart(plain, again, row)


@dataclass(frozen=True)
class _Row:
    """An answer that a decoder gave, and the place of its prompt."""

    place: int
    generation: Generation
    is_greedy: bool

    @property
    def tokens(self) -> tuple[int, ...]:
        """Of the answer."""
        return self.generation.token_ids


def _is_sound(logprobs: Tensor) -> bool:
    """Whether there is something to compare with: no NaN, and no token whose every log-probability is infinite."""
    return bool(logprobs.isfinite().any(-1).all()) and not bool(logprobs.isnan().any())


def _apart(one: Tensor, other: Tensor, row: _Row) -> float:
    """Mean over an answer's tokens of how far two passes' log-probabilities [T, V] of them are apart."""
    of = torch.tensor(row.tokens).unsqueeze(-1)
    return float((one.gather(-1, of) - other.gather(-1, of)).abs().mean())


def _distance(plain: Tensor, row: _Row) -> float:
    """Mean over an answer's tokens of how far their log-probabilities are from the plain pass's [T, V].

    A greedy answer's tokens are to be the likeliest there too: what lacks to that counts as well.
    """
    of_tokens = plain.gather(-1, torch.tensor(row.tokens).unsqueeze(-1)).squeeze(-1)
    apart = (of_tokens - torch.tensor(row.generation.token_logprobs)).abs()
    if row.is_greedy:
        apart = torch.maximum(apart, plain.amax(-1) - of_tokens)
    distance = float(apart.mean())
    return math.inf if math.isnan(distance) else distance


def tried(attempt: Callable[[], T], asked: str) -> T | str | None:
    """What came of a trial; why the model's code does not take what is ``asked``; None where memory ran out."""
    try:
        return or_none_if_out_of_memory(attempt)
    except FAILURES as error:
        return why_it_failed(error, asked)
