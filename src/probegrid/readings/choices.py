"""The reading *choices*: how likely each of some tokens is to come next, after every prompt.

Made once, stored as it comes, known by the prompt's tokens. Knows token ids, the engine and the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probegrid.readings.batches import Look, halving, lay_out_once, work_through
from probegrid.readings.identity import digest_of
from probegrid.readings.prompts import shared_prefix
from probegrid.readings.store import Entry
from probegrid.readings.ways import read_way, write_way
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress

FORMAT = 2
"""Raised whenever the same description would give other log-probabilities than before."""

_COLUMNS = ("prompt", "logprobs", "seconds", "read_at")


@dataclass(frozen=True)
class ChoiceReading:
    """The log-probabilities of the choices after every prompt."""

    key: str
    """Name of the store's entry."""
    logprobs: tuple[tuple[float, ...], ...]
    """For each prompt, of each choice: natural log-probability at temperature 1, from the raw logits, float32."""
    read_s: float
    """Seconds of reading, those of earlier runs included."""
    found_s: float = field(compare=False)
    """The seconds of it that were spent before: on what the store held."""
    way: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """How the model was read when the newest of them were, see `ways`."""


def read_choices(
    prompts: Sequence[tuple[int, ...]],
    choices: Sequence[int],
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
) -> ChoiceReading:
    """Read what the store does not hold yet, and return all of it.

    Args:
        prompts: token ids of each; their order is the order of the reading.
        choices: token ids whose log-probabilities are read.
        batch_size: prompts read together, or ``auto`` for what memory allows; changes speed, never the entry.
        description: what determines the log-probabilities besides the tokens (`identity.describe_model`).
        store_dir: the store's folder.
        tokenizer: the model's.
        open_model: loads the model; called only if something is missing.
        progress: told how many prompts are done.
        since: what was read before (seconds since the epoch) is read again; None: nothing is.
        readers: processes that share the reading: the batches are laid out for so many.
        began: when those who share it began (seconds since the epoch): what is older was spent before. None: now.

    Raises:
        StoreError: a file that may not be read, or a full disk.
        RunError: one prompt alone does not fit in memory.
    """
    entry = Entry(store_dir, "choices", {"format": FORMAT, **description, "choices": list(choices)})
    digests = [digest_of(prompt) for prompt in prompts]
    asked, began = dict(zip(digests, prompts, strict=True)), began or time.time()
    done = _read(entry, since)
    if missing := asked.keys() - done.keys():
        for sentence in entry.damage:
            progress.say(sentence)
        decoding = DecodingConfig(max_new_tokens=1, batch_size=batch_size)
        model = open_model()
        _read_missing(entry, asked, choices, missing, decoding, tokenizer, model, progress, since, readers)
        entry.merge(_COLUMNS)
        done = _read(entry, None)
    seconds = sum(done[digest][1] for digest in asked)
    found_s = sum(done[digest][1] for digest in asked if done[digest][2] < began)
    return ChoiceReading(
        entry.key, tuple(done[digest][0] for digest in digests), seconds, found_s, read_way(entry)
    )


def _read(entry: Entry, since: float | None) -> dict[str, tuple[tuple[float, ...], float, float]]:
    """What an entry holds, by the digest of each prompt: its newest log-probabilities, their seconds, and when."""
    rows = [row for table in entry.read_parts(_COLUMNS) for row in table.to_pylist()]
    return {
        row["prompt"]: (tuple(row["logprobs"]), row["seconds"], float(row["read_at"]))
        for row in sorted(rows, key=lambda row: float(row["read_at"]))
        if since is None or row["read_at"] >= since
    }


def _read_missing(
    entry: Entry,
    asked: Mapping[str, tuple[int, ...]],
    choices: Sequence[int],
    missing: set[str],
    decoding: DecodingConfig,
    tokenizer: PreTrainedTokenizerBase,
    loaded: LoadedModel,
    progress: Progress,
    since: float | None,
    readers: int,
) -> None:
    import pyarrow as pa

    from probegrid.inference.engine import Engine

    digests, prompts = list(asked), list(asked.values())
    length = shared_prefix(prompts)
    suffixes = [prompt[length:] for prompt in prompts]
    engine = Engine(loaded, tokenizer, prompts[0][:length], decoding, (), suffixes=suffixes)
    write_way(entry, engine.report)
    progress.say(engine.report.sentence())
    index_of = {digest: index for index, digest in enumerate(digests)}
    batches = lay_out_once(
        entry,
        digests,
        {index_of[digest] for digest in missing},
        lambda indices: engine.lay_out({index: len(suffixes[index]) for index in indices}),
        readers=readers if decoding.batch_size == "auto" else 1,
    )
    progress.start("choices", total=len(prompts), done=len(prompts) - len(missing))

    def attempt(part: Sequence[int]) -> tuple[list[list[float]], float] | None:
        started = time.perf_counter()
        found = engine.next_logprobs([suffixes[index] for index in part], choices)
        return None if found is None else (found, time.perf_counter() - started)

    def do(batch: Sequence[int]) -> None:
        for part, (logprobs, seconds) in halving([batch], attempt, lambda index: _too_large(prompts[index])):
            seconds += engine.take_setup_seconds()
            columns = {
                "prompt": pa.array([digests[index] for index in part], pa.string()),
                "logprobs": pa.array(logprobs, pa.list_(pa.float32())),
                "seconds": pa.array([seconds / len(part)] * len(part), pa.float64()),
                "read_at": pa.array([time.time()] * len(part), pa.float64()),
            }
            entry.write_part(pa.table(columns))
            progress.advance(len(part), tokens=sum(len(suffixes[index]) for index in part))

    work_through(entry, batches, do, Look(entry, index_of, since), progress)


def _too_large(prompt: Sequence[int]) -> str:
    return f"a prompt of {len(prompt)} tokens alone does not fit in memory; choose another device_map or quantization."
