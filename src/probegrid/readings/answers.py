"""The reading *answers*: generated once, stored as they come, shared by every probe that needs them.

Knows prompts, the generation loop and the store.

Batches are laid out once for the whole reading and written down, so that a reading which was interrupted goes on
with the very batches it would have had: its answers are those of an uninterrupted one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probegrid.readings.batches import halving
from probegrid.readings.prompts import Prompt, shared_prefix
from probegrid.readings.store import Entry
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from probegrid.inference.generation import Generation
    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress

FORMAT = 1
"""Raised whenever the same description would give other answers than before."""


@dataclass(frozen=True)
class AnswerReading:
    """Everything that was generated for a set of prompts."""

    key: str
    """Name of the store's entry."""
    prompts: tuple[Prompt, ...]
    generations: tuple[tuple[Generation, ...], ...]
    """For each prompt: the greedy answer, then the samples."""
    read_s: float
    """Seconds of generation, those of earlier, interrupted runs included."""
    generated_tokens: int
    """Tokens generated, those of stops and of samples included."""
    prefix_tokens: int
    """Tokens that all prompts share and that were read once."""

    @property
    def greedy(self) -> tuple[Generation, ...]:
        """The greedy answer to each prompt."""
        return tuple(found[0] for found in self.generations)


def read_answers(
    prompts: Sequence[Prompt],
    decoding: DecodingConfig,
    stop: Sequence[str],
    *,
    description: Mapping[str, Any],
    store_dir: str,
    tokenizer: PreTrainedTokenizerBase,
    open_model: Callable[[], LoadedModel],
    progress: Progress,
) -> AnswerReading:
    """Generate what the store does not hold yet, and return all of it.

    Args:
        prompts: one a question; their order is the order of the reading.
        decoding: how answers are generated; ``batch_size`` changes speed, never the entry.
        stop: strings that end an answer.
        description: what else determines the answers (checkpoint, dtype, quantization, dataset, prompt).
        store_dir: the store's folder.
        tokenizer: decodes the answers.
        open_model: loads the model; called only if something is missing.
        progress: told how many questions are done.

    Raises:
        StoreError: a damaged entry or a full disk.
        RunError: one question alone does not fit in memory.
    """
    entry = Entry(store_dir, "answers", {"format": FORMAT, **description})
    done = _Done.of(entry)
    missing = set(range(len(prompts))) - done.rows.keys()
    length = shared_prefix([prompt.token_ids for prompt in prompts])
    if missing:
        _generate_missing(entry, prompts, missing, length, decoding, stop, tokenizer, open_model(), progress)
        done = _Done.of(entry)
    generations = tuple(done.rows[index] for index in range(len(prompts)))
    tokens = sum(generation.steps for found in generations for generation in found)
    return AnswerReading(entry.key, tuple(prompts), generations, done.seconds, tokens, length)


@dataclass(frozen=True)
class _Done:
    """What an entry holds: the generations of each prompt by its index, and the seconds they took."""

    rows: dict[int, tuple[Generation, ...]]
    seconds: float

    @classmethod
    def of(cls, entry: Entry) -> _Done:
        rows: dict[int, tuple[Generation, ...]] = {}
        seconds = 0.0
        for table in entry.read_parts():
            rows.update(_from_table(table))
            seconds += float(table.schema.metadata[b"seconds"])
        return cls(rows, seconds)


def _generate_missing(
    entry: Entry,
    prompts: Sequence[Prompt],
    missing: set[int],
    prefix_length: int,
    decoding: DecodingConfig,
    stop: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    loaded: LoadedModel,
    progress: Progress,
) -> None:
    from probegrid.inference.engine import Engine

    engine = Engine(
        loaded, tokenizer, prompts[0].token_ids[:prefix_length], decoding, stop, longest=_longest(prompts)
    )
    if engine.obstacle is not None:
        progress.say(f"plain batches, the prefix is not shared: {engine.obstacle}")
    suffixes = {index: prompt.token_ids[prefix_length:] for index, prompt in enumerate(prompts)}
    keys = {index: prompt.question.id for index, prompt in enumerate(prompts)}
    batches = entry.read_json("batches.json")
    if batches is None:
        batches = engine.lay_out({index: len(suffix) for index, suffix in suffixes.items()})
        entry.write_json("batches.json", batches)
    progress.start("answers", total=len(prompts), done=len(prompts) - len(missing))

    def attempt(part: Sequence[int]) -> tuple[list[list[Generation]], float] | None:
        started = time.perf_counter()
        found = engine.answer([suffixes[index] for index in part], [keys[index] for index in part])
        return None if found is None else (found, time.perf_counter() - started)

    lacking = ([index for index in batch if index in missing] for batch in batches)
    for part, (generations, seconds) in halving(lacking, attempt, lambda index: _too_large(keys[index])):
        seconds += engine.take_setup_seconds()
        entry.write_part(f"part-{part[0]:06d}", _to_table(part, generations, seconds))
        progress.advance(len(part), tokens=sum(g.steps for found in generations for g in found))


def _too_large(question: str) -> str:
    return (
        f"question {question} alone does not fit in memory; lower decoding.max_new_tokens or "
        "decoding.num_generations, or choose another device_map or quantization."
    )


def _longest(prompts: Sequence[Prompt]) -> int:
    return max(len(prompt.token_ids) for prompt in prompts)


def _to_table(
    indices: Sequence[int], generations: Sequence[Sequence[Generation]], seconds: float
) -> pa.Table:
    import pyarrow as pa

    rows = [
        (index, sample, g)
        for index, found in zip(indices, generations, strict=True)
        for sample, g in enumerate(found)
    ]
    columns = {
        "index": pa.array([index for index, _, _ in rows], pa.int32()),
        "sample": pa.array([sample for _, sample, _ in rows], pa.int32()),
        "token_ids": pa.array([g.token_ids for _, _, g in rows], pa.list_(pa.int32())),
        "token_logprobs": pa.array([g.token_logprobs for _, _, g in rows], pa.list_(pa.float32())),
        "text": pa.array([g.text for _, _, g in rows], pa.string()),
        "steps": pa.array([g.steps for _, _, g in rows], pa.int32()),
        "first_entropy": pa.array([g.first_entropy for _, _, g in rows], pa.float32()),
    }
    return pa.table(columns).replace_schema_metadata({"seconds": repr(seconds)})


def _from_table(table: pa.Table) -> dict[int, tuple[Generation, ...]]:
    from probegrid.inference.generation import Generation

    rows = sorted(table.to_pylist(), key=lambda row: (row["index"], row["sample"]))
    return {
        index: tuple(
            Generation(
                tuple(row["token_ids"]),
                tuple(row["token_logprobs"]),
                row["text"],
                row["steps"],
                row["first_entropy"],
            )
            for row in found
        )
        for index, found in itertools.groupby(rows, key=lambda row: row["index"])
    }
