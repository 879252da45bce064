"""The reading *answers*: generated once, stored as they come, shared by every probe that needs them.

An entry of the store is a model and a way of decoding; its rows are known by the prompt's tokens, so that 400 questions
after 100 ask 300. Knows prompts, the engine and the store.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probegrid.readings.batches import Look, halving, lay_out_once, work_through
from probegrid.readings.identity import describe_decoding
from probegrid.readings.prompts import Prompt, shared_prefix
from probegrid.readings.store import Entry
from probegrid.readings.ways import read_way, write_way
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

    from probegrid.inference.generation import Generation
    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress

FORMAT = 2
"""Raised whenever the same description would give other answers than before."""

_OF_GENERATION = ("token_ids", "token_logprobs", "text", "steps", "first_entropy", "first_logprob", "ended")
_COLUMNS = ("prompt", "sample", *_OF_GENERATION, "seconds", "read_at")


@dataclass(frozen=True)
class AnswerReading:
    """Everything that was generated for a set of prompts."""

    key: str
    """Name of the store's entry, which other prompts of the same model and decoding share."""
    prompts: tuple[Prompt, ...]
    generations: tuple[tuple[Generation, ...], ...]
    """For each prompt: the greedy answer, then the samples."""
    read_s: float
    """Seconds of generation, those of earlier runs included."""
    found_s: float = field(compare=False)
    """The seconds of it that were spent before: on what the store held."""
    generated_tokens: int
    """Tokens generated, those of stops and of samples included."""
    prefix_tokens: int
    """Tokens that all prompts share and that were read once."""
    way: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """How the model was read when the newest of them were, see `ways`."""

    @property
    def greedy(self) -> tuple[Generation, ...]:
        """The greedy answer to each prompt."""
        return tuple(found[0] for found in self.generations)


def entry_of_answers(
    store_dir: str, description: Mapping[str, Any], decoding: DecodingConfig, stop: Sequence[str]
) -> Entry:
    """The store's entry for the answers of a model in one way of decoding."""
    described = {"format": FORMAT, **description, "decoding": describe_decoding(decoding, stop)}
    return Entry(store_dir, "answers", described)


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
    since: float | None = None,
    readers: int = 1,
    began: float | None = None,
) -> AnswerReading:
    """Generate what the store does not hold yet, and return all of it.

    Args:
        prompts: one a question; their order is the order of the reading.
        decoding: how answers are generated; ``batch_size`` changes speed, never the entry.
        stop: strings that end an answer.
        description: what determines what the model makes of tokens (`identity.describe_model`).
        store_dir: the store's folder.
        tokenizer: decodes the answers.
        open_model: loads the model; called only if something is missing.
        progress: told how many questions are done.
        since: what was read before (seconds since the epoch) is read again; None: nothing is.
        readers: processes that share the reading: the batches are laid out for so many.
        began: when those who share it began (seconds since the epoch): what is older was spent before. None: now.

    Raises:
        StoreError: a file that may not be read, or a full disk.
        RunError: one question alone does not fit in memory.
    """
    entry = entry_of_answers(store_dir, description, decoding, stop)
    wanted, began = [prompt.digest for prompt in prompts], began or time.time()
    done = _read(entry, set(wanted), since)
    length = shared_prefix([prompt.token_ids for prompt in prompts])
    if set(wanted) - done.keys():
        for sentence in entry.damage:
            progress.say(sentence)
        missing = {prompt.digest: prompt for prompt in prompts if prompt.digest not in done}
        model = open_model()
        _generate(entry, prompts, missing, length, decoding, stop, tokenizer, model, progress, since, readers)
        entry.merge(_COLUMNS)
        done = _read(entry, set(wanted), None)
    unique = [done[digest] for digest in dict.fromkeys(wanted)]
    return AnswerReading(
        entry.key,
        tuple(prompts),
        tuple(done[digest].generations for digest in wanted),
        sum(each.seconds for each in unique),
        sum(each.seconds for each in unique if each.read_at < began),
        sum(generation.steps for each in unique for generation in each.generations),
        length,
        read_way(entry),
    )


@dataclass(frozen=True)
class _Done:
    """What the store holds of a prompt: its generations, and its share of the seconds they took."""

    generations: tuple[Generation, ...]
    seconds: float
    read_at: float


def _read(entry: Entry, wanted: set[str], since: float | None) -> dict[str, _Done]:
    """What there is of each prompt, the newest where it was read several times."""
    found: dict[str, _Done] = {}
    for table in entry.read_parts(_COLUMNS):
        for digest, done in _from_table(table, wanted):
            is_newer = digest not in found or found[digest].read_at < done.read_at
            if is_newer and (since is None or done.read_at >= since):
                found[digest] = done
    return found


def _generate(
    entry: Entry,
    prompts: Sequence[Prompt],
    missing: Mapping[str, Prompt],
    prefix_length: int,
    decoding: DecodingConfig,
    stop: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    loaded: LoadedModel,
    progress: Progress,
    since: float | None,
    readers: int,
) -> None:
    from probegrid.inference.engine import Engine

    prefix = prompts[0].token_ids[:prefix_length]
    asked = list({prompt.digest: prompt for prompt in prompts}.values())
    suffixes = [prompt.token_ids[prefix_length:] for prompt in asked]
    engine = Engine(loaded, tokenizer, prefix, decoding, stop, suffixes=suffixes)
    write_way(entry, engine.report)
    progress.say(engine.report.sentence())
    index_of = {prompt.digest: index for index, prompt in enumerate(asked)}
    batches = lay_out_once(
        entry,
        list(index_of),
        {index_of[digest] for digest in missing},
        lambda indices: engine.lay_out({index: len(suffixes[index]) for index in indices}),
        readers=readers if decoding.batch_size == "auto" else 1,
    )
    progress.start("answers", total=len(asked), done=len(asked) - len(missing))

    def attempt(part: Sequence[int]) -> tuple[list[list[Generation]], float] | None:
        started = time.perf_counter()
        found = engine.answer([suffixes[index] for index in part], [asked[index].digest for index in part])
        return None if found is None else (found, time.perf_counter() - started)

    def do(batch: Sequence[int]) -> None:
        for part, (generations, seconds) in halving([batch], attempt, lambda index: _too_large(asked[index])):
            seconds += engine.take_setup_seconds()
            entry.write_part(_to_table([asked[index].digest for index in part], generations, seconds))
            progress.advance(len(part), tokens=sum(g.steps for found in generations for g in found))

    work_through(entry, batches, do, Look(entry, index_of, since), progress)


def _too_large(prompt: Prompt) -> str:
    return (
        f"question {prompt.question.id} alone does not fit in memory; lower decoding.max_new_tokens or "
        "decoding.num_generations, or choose another device_map or quantization."
    )


def _to_table(
    digests: Sequence[str], generations: Sequence[Sequence[Generation]], seconds: float
) -> pa.Table:
    """Rows of one batch, which share its seconds evenly."""
    import pyarrow as pa

    rows = [
        (digest, sample, g)
        for digest, found in zip(digests, generations, strict=True)
        for sample, g in enumerate(found)
    ]
    types = {
        "token_ids": pa.list_(pa.int32()),
        "token_logprobs": pa.list_(pa.float32()),
        "text": pa.string(),
        "steps": pa.int32(),
        "first_entropy": pa.float32(),
        "first_logprob": pa.float32(),
        "ended": pa.string(),
    }
    columns = {
        "prompt": pa.array([digest for digest, _, _ in rows], pa.string()),
        "sample": pa.array([sample for _, sample, _ in rows], pa.int32()),
        **{name: pa.array([getattr(g, name) for _, _, g in rows], types[name]) for name in _OF_GENERATION},
        "seconds": pa.array([seconds / len(rows)] * len(rows), pa.float64()),
        "read_at": pa.array([time.time()] * len(rows), pa.float64()),
    }
    return pa.table(columns)


def _from_table(table: pa.Table, wanted: set[str]) -> Iterator[tuple[str, _Done]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    from probegrid.inference.generation import Generation

    chosen = table.filter(pc.is_in(table["prompt"], pa.array(sorted(wanted), pa.string())))
    rows = sorted(chosen.to_pylist(), key=lambda row: (row["prompt"], row["read_at"], row["sample"]))
    for (digest, read_at), of_prompt in itertools.groupby(
        rows, key=lambda row: (str(row["prompt"]), float(row["read_at"]))
    ):
        found = list(
            {row["sample"]: row for row in of_prompt}.values()
        )  # two merges at once leave a row twice
        generations = tuple(
            Generation(
                tuple(row["token_ids"]),
                tuple(row["token_logprobs"]),
                *(row[name] for name in _OF_GENERATION[2:]),
            )
            for row in found
        )
        yield digest, _Done(generations, sum(row["seconds"] for row in found), read_at)
