"""The reading *distributions*: what the model thinks at each token of its greedy answers, and where it looks.

Each prompt is read once more with its answer behind it, all from one shared prefix. Stored as it comes, known by the
tokens of prompt and answer. Knows token ids, the engine and the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probegrid.readings.batches import Look, halving, lay_out_once, work_through
from probegrid.readings.options import digest_of_options
from probegrid.readings.prompts import shared_prefix
from probegrid.readings.store import Entry
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from probegrid.inference.token_steps import Distributions
    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress

FORMAT = 1
"""Raised whenever the same description would give other numbers than before."""

_KEPT = (
    "entropies",
    "divergences",
    "top_ids",
    "top_logprobs",
    "vocabulary",
    "layers",
    "attention",
    "middle_attention",
)
_COLUMNS = ("prompt", *_KEPT, "seconds", "read_at")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenSteps:
    """The distributions of the T tokens of a greedy answer, reduced; of one without tokens, that of its stop.

    Attributes:
        entropies: float64[T], Shannon, nats, over the whole vocabulary at temperature 1.
        divergences: float64[T], of the uniform distribution from each, nats.
        top_ids: int64[T, k], the likeliest tokens.
        top_logprobs: float64[T, k], falling.
        vocabulary: number of tokens there are.
        layers: whose attention was read; none where it is not at hand.
        attention: float64[layers, T - 1]: of the head that looks there most, the weight that the step which writes a
            token gives to the token before it, as LM-Polygraph has it.
        middle_attention: float64[T - 1], mean over the middle layer's heads of the logarithm of the same.
    """

    entropies: Floats
    divergences: Floats
    top_ids: NDArray[np.int64]
    top_logprobs: Floats
    vocabulary: int
    layers: tuple[int, ...]
    attention: Floats
    middle_attention: Floats


@dataclass(frozen=True)
class StepReading:
    """The distributions at the tokens of every prompt's answer."""

    key: str
    """Name of the store's entry."""
    steps: tuple[TokenSteps, ...]
    """For each prompt."""
    read_s: float
    """Seconds of reading, those of earlier runs included."""
    found_s: float = field(compare=False)
    """The seconds of it that were spent before: on what the store held."""

    @property
    def has_attention(self) -> bool:
        """Whether attention was at hand."""
        return all(each.layers for each in self.steps)


def read_steps(
    prompts: Sequence[tuple[int, ...]],
    answers: Sequence[tuple[int, ...]],
    *,
    batch_size: str,
    description: Mapping[str, Any],
    store_dir: str,
    tokenizer: PreTrainedTokenizerBase,
    open_model: Callable[[], LoadedModel],
    progress: Progress,
    since: float | None = None,
    readers: int = 1,
    began: float | None = None,
) -> StepReading:
    """Read what the store does not hold yet, and return all of it.

    Args:
        prompts: token ids of each; their order is the order of the reading.
        answers: token ids of each one's greedy answer, possibly none.
        batch_size: prompts read together, or ``auto`` for what memory allows; changes speed, never the entry.
        description: what determines the distributions besides the tokens (`identity.describe_model`).
        store_dir: the store's folder.
        tokenizer: the model's.
        open_model: loads the model; called only if something is missing.
        progress: told how many prompts are done.
        since: what was read before (seconds since the epoch) is read again; None: nothing is.
        readers: processes that share the reading: the batches are laid out for so many.
        began: when those who share it began (seconds since the epoch): what is older was spent before. None: now.

    Raises:
        StoreError: a file that may not be read, or a full disk.
        RunError: one prompt with its answer alone does not fit in memory.
    """
    entry = Entry(store_dir, "distributions", {"format": FORMAT, **description})
    digests = [digest_of_options(prompt, (answer,)) for prompt, answer in zip(prompts, answers, strict=True)]
    asked = dict(zip(digests, zip(prompts, answers, strict=True), strict=True))
    began = began or time.time()
    done = _read(entry, since)
    if missing := asked.keys() - done.keys():
        for sentence in entry.damage:
            progress.say(sentence)
        _read_missing(entry, asked, missing, batch_size, tokenizer, open_model(), progress, since, readers)
        entry.merge(_COLUMNS)
        done = _read(entry, None)
    seconds = sum(done[digest][1] for digest in asked)
    found_s = sum(done[digest][1] for digest in asked if done[digest][2] < began)
    return StepReading(entry.key, tuple(done[digest][0] for digest in digests), seconds, found_s)


def _read(entry: Entry, since: float | None) -> dict[str, tuple[TokenSteps, float, float]]:
    """What an entry holds, by what it is known by: the newest distributions, their seconds, and when."""
    rows = [row for table in entry.read_parts(_COLUMNS) for row in table.to_pylist()]
    return {
        row["prompt"]: (_steps(row), row["seconds"], float(row["read_at"]))
        for row in sorted(rows, key=lambda row: float(row["read_at"]))
        if since is None or row["read_at"] >= since
    }


def _steps(row: Mapping[str, Any]) -> TokenSteps:
    length, layers = len(row["entropies"]), tuple(row["layers"])
    return TokenSteps(
        entropies=np.array(row["entropies"]),
        divergences=np.array(row["divergences"]),
        top_ids=np.array(row["top_ids"], dtype=np.int64).reshape(length, -1),
        top_logprobs=np.array(row["top_logprobs"]).reshape(length, -1),
        vocabulary=row["vocabulary"],
        layers=layers,
        attention=np.array(row["attention"], dtype=np.float64).reshape(len(layers), length - 1),
        middle_attention=np.array(row["middle_attention"], dtype=np.float64),
    )


def _table(digests: Sequence[str], found: Sequence[Distributions], seconds: float) -> pa.Table:
    import pyarrow as pa

    def flat(name: str) -> list[list[float]]:
        values = [getattr(each, name) for each in found]
        return [[] if value is None else value.flatten().tolist() for value in values]

    n = len(found)
    return pa.table(
        {
            "prompt": pa.array(digests, pa.string()),
            "entropies": pa.array(flat("entropies"), pa.list_(pa.float32())),
            "divergences": pa.array(flat("divergences"), pa.list_(pa.float32())),
            "top_ids": pa.array(flat("top_ids"), pa.list_(pa.int32())),
            "top_logprobs": pa.array(flat("top_logprobs"), pa.list_(pa.float32())),
            "vocabulary": pa.array([each.vocabulary for each in found], pa.int32()),
            "layers": pa.array([each.layers for each in found], pa.list_(pa.int32())),
            "attention": pa.array(flat("attention"), pa.list_(pa.float32())),
            "middle_attention": pa.array(flat("middle_attention"), pa.list_(pa.float32())),
            "seconds": pa.array([seconds / n] * n, pa.float64()),
            "read_at": pa.array([time.time()] * n, pa.float64()),
        }
    )


def _read_missing(
    entry: Entry,
    asked: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    missing: set[str],
    batch_size: str,
    tokenizer: PreTrainedTokenizerBase,
    loaded: LoadedModel,
    progress: Progress,
    since: float | None,
    readers: int,
) -> None:
    from probegrid.inference.engine import Engine

    digests, prompts = list(asked), [prompt for prompt, _ in asked.values()]
    answers = [answer for _, answer in asked.values()]
    length = shared_prefix(prompts)
    decoding = DecodingConfig(max_new_tokens=max(1, *map(len, answers)), batch_size=batch_size)
    suffixes = [prompt[length:] for prompt in prompts]
    engine = Engine(loaded, tokenizer, prompts[0][:length], decoding, (), suffixes=suffixes)
    index_of = {digest: index for index, digest in enumerate(digests)}
    batches = lay_out_once(
        entry,
        digests,
        {index_of[digest] for digest in missing},
        lambda indices: engine.lay_out({index: len(suffixes[index]) for index in indices}),
        readers=readers if batch_size == "auto" else 1,
    )
    progress.start("distributions", total=len(prompts), done=len(prompts) - len(missing))

    def attempt(part: Sequence[int]) -> tuple[list[Distributions], float] | None:
        started = time.perf_counter()
        found = engine.distributions([suffixes[index] for index in part], [answers[index] for index in part])
        return None if found is None else (found, time.perf_counter() - started)

    def do(batch: Sequence[int]) -> None:
        for part, (found, seconds) in halving([batch], attempt, lambda index: _too_large(prompts[index])):
            seconds += engine.take_setup_seconds()
            entry.write_part(_table([digests[index] for index in part], found, seconds))
            progress.advance(len(part), tokens=sum(len(suffixes[index]) for index in part))

    work_through(entry, batches, do, Look(entry, index_of, since), progress)


def _too_large(prompt: Sequence[int]) -> str:
    return (
        f"a prompt of {len(prompt)} tokens with its answer alone does not fit in memory; choose another device_map or "
        "quantization."
    )
