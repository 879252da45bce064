"""A few prompts through a decoder and through the model's own forward pass, one row at a time: are they the same?

What a decoder makes of a model is believed where the log-probabilities of what it generates are those that the plain
pass gives the same tokens, up to rounding, which is measured on the model itself where it is large. So no list of
families decides what is right. Knows decoders, and the plain forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.inference.generation import Decoder, Generation, Sampling, generate
from probegrid.inference.linear import fast_linear
from probegrid.inference.one_by_one import keeping
from probegrid.inference.packed import give_back_attention
from probegrid.inference.stopping import StopRule
from probegrid.models.load import embedding_device
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
CAUSAL = 0.005
"""Nats by which the plain pass may differ from itself on rows that end earlier, which other kernels may read."""
_TRIED = "_probegrid_tried"
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a model's code raises where a decoder calls it as it was not meant to be."""


@dataclass(frozen=True)
class Report:
    """Which way a model is read, and what it was tried on."""

    used: str
    """Name of the way."""
    prompts: int = 0
    """Prompts that it was tried on; 0: it was not."""
    distance: float = 0.0
    """Of what it gives from the model's own forward pass of one row, the mean of the worst row."""
    allowed: float = 0.0
    """The largest distance that counts as rounding here."""
    unit: str = "nats"
    """Of the distances."""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """Faster ways, and why each was not taken."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "used": self.used,
            "prompts": self.prompts,
            "distance": self.distance,
            "allowed": self.allowed,
            "unit": self.unit,
            "passed_over": dict(self.passed_over),
        }

    def sentence(self) -> str:
        """What a person should know of it."""
        tried = (
            f"within {self.distance:.1g} {self.unit} of the model's own forward pass on {self.prompts} prompts"
            if self.prompts
            else "not tried"
        )
        others = "".join(f"; not {name}: {why}" for name, why in self.passed_over.items())
        return f"{self.used}: {tried}{others}"


@dataclass(frozen=True)
class Outcome:
    """How far a decoder was from the plain pass."""

    distance: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether it is rounding."""
        return self.distance <= self.allowed

    def why_not(self) -> str:
        """Why it is not taken."""
        return (
            f"{self.distance:.2g} nats from the model's own forward pass of one row, where rounding is "
            f"{self.allowed:.1g}"
        )


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
        self._model, self._prefix, self._rule = model, list(prefix), rule
        self._first: list[Tensor] | None = None

    @property
    def _longest(self) -> int:
        return len(self._prefix) + max(map(len, self.suffixes), default=0)

    def known(self, steps: int, sampling: Sampling) -> Report | None:
        """What a trial of the same model said, of prompts as long as these and as many steps; None where none did."""
        done, report = getattr(self._model, _TRIED, ((), None))
        wanted = (self._longest, min(STEPS, steps), min(1, sampling.count))
        return report if done and all(one <= other for one, other in zip(wanted, done, strict=True)) else None

    def remember(self, report: Report, steps: int, sampling: Sampling) -> None:
        """Keep what was found with the model, as long as it is in memory."""
        setattr(self._model, _TRIED, ((self._longest, min(STEPS, steps), min(1, sampling.count)), report))

    def look_before_fusing(self) -> None:
        """Keep what the model's own code gives behind each prompt, before kernels of others take its place."""
        self._first = or_none_if_out_of_memory(
            lambda: [self._plain([*self._prefix, *suffix], 1)[0] for suffix in self.suffixes]
        )

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
        return or_none_if_out_of_memory(lambda: self._compare(found))

    def _compare(self, found: Sequence[Sequence[Generation]]) -> Outcome | None:
        own = self._model.config._attn_implementation
        give_back_attention(self._model)
        try:
            rows = [
                (place, sample == 0, generation)
                for place, each in enumerate(found)
                for sample, generation in enumerate(each)
            ]
            plain = [self._logprobs(place, generation) for place, _, generation in rows]
            if not all(
                bool(each.isfinite().any(-1).all()) and not bool(each.isnan().any()) for each in plain
            ):
                return Outcome(
                    0.0, math.inf
                )  # the model's own pass overflows, which the reading itself refuses
            distance = max(
                _distance(each, generation, greedy=greedy)
                for each, (_, greedy, generation) in zip(plain, rows, strict=True)
            )
            if self._first is not None:
                distance = max(
                    distance, *(self._from_first(place, generation) for place, _, generation in rows)
                )
            allowed = ROUNDING[product_dtype(self._model)]
            if allowed < distance < math.inf:
                allowed = max(allowed, _TIMES * self._own_distance(rows, plain))
            return Outcome(distance, allowed)
        finally:
            self._model.set_attn_implementation(own)

    def _from_first(self, place: int, generation: Generation) -> float:
        assert self._first is not None
        return abs(float(self._first[place][generation.token_ids[0]]) - generation.token_logprobs[0])

    def _logprobs(self, place: int, generation: Generation) -> Tensor:
        """What the plain pass gives for every token of an answer: [T, V] float32 on the CPU."""
        tokens = generation.token_ids
        return self._plain([*self._prefix, *self.suffixes[place], *tokens[:-1]], len(tokens))

    def _plain(self, row: Sequence[int], last: int) -> Tensor:
        """Log-probabilities behind each of the last tokens of one row: [last, V] float32 on the CPU."""
        return plain_logits(self._model, row, last).log_softmax(-1).cpu()

    def _own_distance(self, rows: Sequence[tuple[int, bool, Generation]], plain: Sequence[Tensor]) -> float:
        """How far the plain pass is from itself: its attention written out, and in company where that matters."""
        company = self._in_company(rows, plain) if rounds_together(self._model) else 0.0
        return max(company, self._written_out(rows, plain))

    def _in_company(self, rows: Sequence[tuple[int, bool, Generation]], plain: Sequence[Tensor]) -> float:
        """How far the plain pass of a row is from that of the row with another's tokens behind it."""
        found = 0.0
        for (place, _, generation), alone in zip(rows, plain, strict=True):
            tokens, others = generation.token_ids, self.suffixes[place - 1]
            row = [*self._prefix, *self.suffixes[place], *tokens[:-1], *others]
            together = self._plain(row, len(tokens) + len(others))[: len(tokens)]
            of = torch.tensor(tokens).unsqueeze(-1)
            found = max(found, float((alone.gather(-1, of) - together.gather(-1, of)).abs().mean()))
        return found

    def _written_out(self, rows: Sequence[tuple[int, bool, Generation]], plain: Sequence[Tensor]) -> float:
        self._model.set_attn_implementation("eager")
        try:
            again = [self._logprobs(place, generation) for place, _, generation in rows]
        except FAILURES:
            return 0.0
        tokens = [torch.tensor(generation.token_ids).unsqueeze(-1) for _, _, generation in rows]
        return max(
            float((one.gather(-1, each) - other.gather(-1, each)).abs().mean())
            for one, other, each in zip(plain, again, tokens, strict=True)
        )


def plain_logits(model: PreTrainedModel, row: Sequence[int], last: int) -> Tensor:
    """Logits [last, V] in float32 behind each of the last tokens of one row, by the model's own forward pass alone."""
    ids = torch.tensor([list(row)], device=embedding_device(model))
    with torch.inference_mode(), fast_linear(model):
        # some families cannot do without a mask, which ``generate`` always gives them
        output = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **keeping(model, last)
        )
    logits: Tensor = output.logits
    return logits[0, -last:].float()


def _distance(plain: Tensor, generation: Generation, *, greedy: bool) -> float:
    """Mean over an answer's tokens of how far their log-probabilities are from the plain pass's [T, V].

    A greedy answer's tokens are to be the likeliest there too: what lacks to that counts as well.
    """
    tokens = torch.tensor(generation.token_ids).unsqueeze(-1)
    of_tokens = plain.gather(-1, tokens).squeeze(-1)
    apart = (of_tokens - torch.tensor(generation.token_logprobs)).abs()
    if greedy:
        apart = torch.maximum(apart, plain.amax(-1) - of_tokens)
    distance = float(apart.mean())
    return math.inf if math.isnan(distance) else distance


def tried(attempt: Callable[[], T]) -> T | str | None:
    """What came of a trial; the reason where the model's code cannot be called that way; None where memory ran out."""
    try:
        return or_none_if_out_of_memory(attempt)
    except FAILURES as error:
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__} in its code: {lines[0][:120]}"
