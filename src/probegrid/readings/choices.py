"""The reading *choices*: how likely each of a few tokens is to come next, after many prompts.

Knows token ids, the engine and the store.

What all prompts begin with is read once. Batches are laid out once and written down, as those of answers are.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probegrid.readings.batches import halving
from probegrid.readings.prompts import shared_prefix
from probegrid.readings.store import Entry
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress

FORMAT = 1
"""Raised whenever the same description would give other log-probabilities than before."""


@dataclass(frozen=True)
class ChoiceReading:
    """The log-probabilities of the choices after every prompt."""

    key: str
    """Name of the store's entry."""
    logprobs: tuple[tuple[float, ...], ...]
    """For each prompt, of each choice: natural log-probability at temperature 1, from the raw logits, float32."""
    read_s: float
    """Seconds of reading, those of earlier, interrupted runs included."""


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
) -> ChoiceReading:
    """Read what the store does not hold yet, and return all of it.

    Args:
        prompts: token ids of each; their order is the order of the reading.
        choices: token ids whose log-probabilities are read.
        batch_size: prompts read together, or ``auto`` for what memory allows; changes speed, never the entry.
        description: what determines the log-probabilities besides the tokens (checkpoint, dtype, quantization).
        store_dir: the store's folder.
        tokenizer: the model's.
        open_model: loads the model; called only if something is missing.
        progress: told how many prompts are done.

    Raises:
        StoreError: a damaged entry or a full disk.
        RunError: one prompt alone does not fit in memory.
    """
    digest = hashlib.sha256(json.dumps([list(prompts), list(choices)]).encode()).hexdigest()
    entry = Entry(store_dir, "choices", {"format": FORMAT, **description, "prompts": digest})
    done, seconds = _read(entry)
    if missing := set(range(len(prompts))) - done.keys():
        decoding = DecodingConfig(max_new_tokens=1, batch_size=batch_size)
        _read_missing(entry, prompts, choices, missing, decoding, tokenizer, open_model(), progress)
        done, seconds = _read(entry)
    return ChoiceReading(entry.key, tuple(done[index] for index in range(len(prompts))), seconds)


def _read(entry: Entry) -> tuple[dict[int, tuple[float, ...]], float]:
    """What an entry holds: the log-probabilities of each prompt by its index, and the seconds they took."""
    done: dict[int, tuple[float, ...]] = {}
    seconds = 0.0
    for table in entry.read_parts():
        done |= {row["index"]: tuple(row["logprobs"]) for row in table.to_pylist()}
        seconds += float(table.schema.metadata[b"seconds"])
    return done, seconds


def _read_missing(
    entry: Entry,
    prompts: Sequence[tuple[int, ...]],
    choices: Sequence[int],
    missing: set[int],
    decoding: DecodingConfig,
    tokenizer: PreTrainedTokenizerBase,
    loaded: LoadedModel,
    progress: Progress,
) -> None:
    import pyarrow as pa

    from probegrid.inference.engine import Engine

    length = shared_prefix(prompts)
    longest = max(map(len, prompts))
    engine = Engine(loaded, tokenizer, prompts[0][:length], decoding, (), longest=longest)
    suffixes = {index: prompt[length:] for index, prompt in enumerate(prompts)}
    batches = entry.read_json("batches.json")
    if batches is None:
        batches = engine.lay_out({index: len(suffix) for index, suffix in suffixes.items()})
        entry.write_json("batches.json", batches)
    progress.start("choices", total=len(prompts), done=len(prompts) - len(missing))

    def attempt(part: Sequence[int]) -> tuple[list[list[float]], float] | None:
        started = time.perf_counter()
        found = engine.next_logprobs([suffixes[index] for index in part], choices)
        return None if found is None else (found, time.perf_counter() - started)

    lacking = ([index for index in batch if index in missing] for batch in batches)
    for part, (logprobs, seconds) in halving(lacking, attempt, lambda index: _too_large(prompts[index])):
        seconds += engine.take_setup_seconds()
        columns = {
            "index": pa.array(part, pa.int32()),
            "logprobs": pa.array(logprobs, pa.list_(pa.float32())),
        }
        table = pa.table(columns).replace_schema_metadata({"seconds": repr(seconds)})
        entry.write_part(f"part-{part[0]:06d}", table)
        progress.advance(len(part), tokens=sum(len(suffixes[index]) for index in part))


def _too_large(prompt: Sequence[int]) -> str:
    return f"a prompt of {len(prompt)} tokens alone does not fit in memory; choose another device_map or quantization."
