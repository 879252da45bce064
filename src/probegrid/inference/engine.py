"""Answers to batches of prompts by the fastest decoder that agrees with the model, within the memory there is.

Knows decoders, how they are tried, the memory of devices and the settings of decoding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from probegrid.errors import RunError
from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.inference.both_ways import why_alone
from probegrid.inference.choosing import logprobs_of
from probegrid.inference.generation import Decoder, Generation, Sampling, continuation_logprobs, generate
from probegrid.inference.one_by_one import OneByOneDecoder
from probegrid.inference.outcome import Outcome, Report
from probegrid.inference.overflow import refuse_overflow
from probegrid.inference.padded import PaddedDecoder
from probegrid.inference.reasons import PACKED, PADDED
from probegrid.inference.shared_prefix import SharedPrefixDecoder, obstacle
from probegrid.inference.stopping import StopRule
from probegrid.inference.token_steps import Distributions, Watcher, distributions
from probegrid.inference.trial import Trial, tried
from probegrid.models.blocks import computing_devices, decoder_blocks
from probegrid.models.fusing import fuse, may_fuse, pays
from probegrid.models.kv_budget import KVBudget
from probegrid.models.quantization import rounds_together
from probegrid.planning.workload import PASS_TOKENS, QUESTIONS, ROWS
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from probegrid.models.load import LoadedModel

FEWEST_PASS_TOKENS = 256
"""Shortest passes that are tried where memory is short."""


_PLAINEST = "one by one without a cache"
_ASKED = {
    "shared prefix": PACKED,
    "padded batches": f"{PADDED} with the cache that most models share",
    "one by one": "a row's next token behind the cache that it made",
}
"""What each way asks of a model's code."""


class Engine:
    """Answers batches of prompts that begin with the same tokens."""

    def __init__(
        self,
        loaded: LoadedModel,
        tokenizer: PreTrainedTokenizerBase,
        prefix: Sequence[int],
        decoding: DecodingConfig,
        stop: Sequence[str],
        *,
        suffixes: Sequence[Sequence[int]],
        ends: Collection[int] = (),
        shows_special: bool = False,
    ) -> None:
        """Read the prefix, and find the fastest decoder that agrees with the model's own forward pass.

        Args:
            loaded: the model.
            tokenizer: decodes the answers, to find their end.
            prefix: token ids that every prompt begins with.
            decoding: the settings of generation.
            stop: strings that end an answer.
            suffixes: what follows the prefix in each prompt of the reading; the shortest and the longest are tried.
                None of them: nothing is.
            ends: tokens that end an answer, besides those that the checkpoint and its tokenizer name.
            shows_special: whether special tokens are text, in which stops may stand.

        Raises:
            RunError: the prefix does not fit in memory, or the model is no causal one.
        """
        started = time.perf_counter()
        model = loaded.model
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self._rule = StopRule(
            tokenizer,
            stop,
            sorted({*loaded.eos_ids, *own, *ends}),
            count_stop=decoding.count_stop,
            shows_special=shows_special,
        )
        self._decoding = decoding
        self._sampling = Sampling(
            decoding.num_generations if decoding.do_sample else 0, decoding.temperature, decoding.seed
        )
        device_type, limits = computing_devices(model)[0].type, loaded.limits
        pass_tokens = limits.pass_tokens if limits else PASS_TOKENS[device_type]
        trial = Trial(model, prefix, suffixes, StopRule(tokenizer, (), ()))
        answers = (1 + self._sampling.count) * decoding.max_new_tokens
        tokens = len(prefix) + sum(len(suffix) + answers for suffix in suffixes)
        lanes = limits.lanes if limits else None
        ways = _ways(model, prefix, pass_tokens, lanes, trial, is_fused=pays(model, tokens))
        self._decoder, self.report = self._choose(ways, trial)
        self._shares = isinstance(self._decoder, SharedPrefixDecoder)
        self._dtype = model.dtype
        self._budget = KVBudget.of(model)
        rows = limits.rows if limits else ROWS[device_type]
        self._most_questions = min(QUESTIONS, max(1, rows // (1 + self._sampling.count)))
        self._prefix_tokens = len(prefix)
        self._most_tokens = limits.cache_tokens if limits else None
        self._setup_s = time.perf_counter() - started

    def _choose(
        self, ways: Mapping[str, Callable[[], Decoder | str]], trial: Trial
    ) -> tuple[Decoder, Report]:
        """The first decoder that agrees with the model's own forward pass.

        Raises:
            RunError: none does.
        """
        passed_over: dict[str, str] = {}
        asked = (self._decoding.max_new_tokens, self._sampling)
        known = trial.known(*asked)
        for name, make in ways.items():
            if known is not None and name in known.passed_over:
                passed_over[name] = known.passed_over[name]
                continue
            made: list[Decoder] = []
            found = tried(
                lambda make=make, made=made: self._try(make, made, trial, known),  # type: ignore[misc]
                _ASKED.get(name, "a row alone"),
            )
            if isinstance(found, Report):
                return made[0], found
            if made and found is None:
                made[0].reset()
                return made[0], Report(name, passed_over=passed_over)
            if isinstance(found, Outcome) and name == _PLAINEST:
                # the plain pass itself, row by row
                found = Outcome(found.distance, max(found.allowed, trial.causal))
            if isinstance(found, Outcome) and found.agrees:
                report = Report(
                    name, len(trial.suffixes), found.distance, found.allowed, passed_over=passed_over
                )
                trial.remember(report, *asked)
                return made[0], report
            passed_over[name] = found.why_not() if isinstance(found, Outcome) else str(found)
        why = "; ".join(f"{name}: {reason}" for name, reason in passed_over.items())
        if rounds_together(trial.model):
            raise RunError(
                "in int8 the model's log-probabilities change with the other tokens of a pass by more than rounding: "
                f"read it in another quantization, as quantization=nf4 ({why})."
            )
        raise RunError(
            "the model's log-probabilities change with the tokens that follow: it is no causal language model, or its "
            f"code does not work here ({why})."
        )

    def _try(
        self, make: Callable[[], Decoder | str], made: list[Decoder], trial: Trial, known: Report | None
    ) -> Outcome | Report | str | None:
        """What comes of a way: what is known of it, the outcome of a trial, or why there is none."""
        decoder = make()
        if isinstance(decoder, str):
            return decoder
        made.append(decoder)
        if known is not None:
            return known
        if not trial.suffixes:
            return None
        return trial.of(decoder, steps=self._decoding.max_new_tokens, sampling=self._sampling)

    def take_setup_seconds(self) -> float:
        """Seconds that reading the prefix took; 0 when asked again."""
        seconds, self._setup_s = self._setup_s, 0.0
        return seconds

    def lay_out(self, lengths: Mapping[int, int]) -> list[list[int]]:
        """Divide prompts into batches, longest first, each within the plan and the memory there is.

        Args:
            lengths: tokens after the prefix, of each prompt by its index.
        """
        chosen = None if self._decoding.batch_size == "auto" else int(self._decoding.batch_size)
        most = chosen or self._most_questions
        batches: list[list[int]] = []
        for index in sorted(lengths, key=lambda index: (-lengths[index], index)):
            if batches and len(batches[-1]) < most:
                longest = lengths[batches[-1][0]]
                if chosen or self._fits((len(batches[-1]) + 1) * self._cached_tokens(longest)):
                    batches[-1].append(index)
                    continue
            batches.append([index])
        return batches

    def _cached_tokens(self, length: int) -> int:
        """Tokens whose keys and values a question holds, its samples included, of so many after the prefix."""
        answers = 1 + self._sampling.count
        if self._shares:
            return length + answers * self._decoding.max_new_tokens
        return answers * (self._prefix_tokens + length + self._decoding.max_new_tokens)

    def _fits(self, tokens: int) -> bool:
        """Whether the keys and values of so many tokens, over all rows together, have room."""
        return (self._most_tokens is None or tokens <= self._most_tokens) and self._budget.holds(tokens)

    def answer(self, suffixes: Sequence[Sequence[int]], keys: Sequence[str]) -> list[list[Generation]] | None:
        """Answer a batch: the greedy answer and the samples of each prompt; None if memory ran out, which is freed."""
        answers = or_none_if_out_of_memory(
            lambda: generate(
                self._decoder,
                suffixes,
                keys,
                self._rule,
                max_new_tokens=self._decoding.max_new_tokens,
                sampling=self._sampling,
            )
        )
        if answers is None:
            self._decoder.reset()
            return None
        refuse_overflow(
            (value for found in answers for each in found for value in _logprobs(each)), self._dtype
        )
        return answers

    def next_logprobs(
        self, suffixes: Sequence[Sequence[int]], token_ids: Sequence[int]
    ) -> list[list[float]] | None:
        """Log-probabilities of some tokens after each prompt of a batch; None if memory ran out, which is freed."""
        found = or_none_if_out_of_memory(
            lambda: logprobs_of(self._decoder.prefill(suffixes, room=0), token_ids).tolist()
        )
        self._decoder.reset()
        refuse_overflow((value for each in found or () for value in each), self._dtype)
        return found

    def distributions(
        self, suffixes: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> list[Distributions] | None:
        """What the model thinks at each token of an answer a prompt; None if memory ran out, which is freed.

        Attention is at hand where the prefix is shared (``obstacle`` is None).
        """
        watcher = None
        if isinstance(self._decoder, SharedPrefixDecoder):
            watcher = self._decoder.watcher = Watcher(len(decoder_blocks(self._decoder.model)))
        found = or_none_if_out_of_memory(lambda: distributions(self._decoder, suffixes, answers, watcher))
        self._decoder.reset()
        refuse_overflow((float(value) for each in found or () for value in each.entropies), self._dtype)
        return found

    def continuations(
        self, suffixes: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[list[float]]] | None:
        """Log-probabilities of the tokens of each prompt's options; None if memory ran out, which is freed."""
        found = or_none_if_out_of_memory(lambda: continuation_logprobs(self._decoder, suffixes, options))
        self._decoder.reset()
        return found


def _logprobs(generation: Generation) -> Iterator[float]:
    """Of the tokens of an answer; of one that ended at once, of its stop."""
    yield generation.first_logprob
    yield from generation.token_logprobs


def _ways(
    model: PreTrainedModel,
    prefix: Sequence[int],
    pass_tokens: int,
    lanes: int | None,
    trial: Trial,
    *,
    is_fused: bool,
) -> dict[str, Callable[[], Decoder | str]]:
    """Ways to read a model, the fastest first: each gives its decoder, or the reason why it has none."""

    def shared() -> Decoder | str:
        if (reason := obstacle(model)) is not None:
            return reason
        if is_fused:
            if may_fuse(model):
                trial.look_before_fusing()
            fuse(model)
        return _shared_prefix_decoder(model, prefix, pass_tokens, lanes)

    return {
        "shared prefix": shared,
        "padded batches": lambda: why_alone(model) or PaddedDecoder(model, prefix),
        "one by one": lambda: OneByOneDecoder(model, prefix, cached=True),
        _PLAINEST: lambda: OneByOneDecoder(model, prefix, cached=False),
    }


def _shared_prefix_decoder(
    model: PreTrainedModel, prefix: Sequence[int], pass_tokens: int, lanes: int | None
) -> SharedPrefixDecoder:
    """Read the prefix, in shorter passes where memory runs out.

    Raises:
        RunError: not even passes of ``FEWEST_PASS_TOKENS`` fit.
    """
    fewest = min(pass_tokens, FEWEST_PASS_TOKENS)
    while pass_tokens >= fewest:
        decoder = or_none_if_out_of_memory(
            partial(SharedPrefixDecoder, model, prefix, chunk_tokens=pass_tokens, lanes=lanes)
        )
        if decoder is not None:
            return decoder
        pass_tokens //= 2
    raise RunError(
        f"the {len(prefix)} tokens that all prompts share do not fit in memory; lower prompt.num_few_shot, or choose "
        "another device_map or quantization."
    )
