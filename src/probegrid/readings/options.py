"""The reading *options*: how likely each of some continuations is after its prompt, token by token.

Made from one shared prefix, each prompt read once for all its options. Stored as it comes, known by the tokens of
prompt and options. Knows token ids, the engine and the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probegrid.errors import ConfigError
from probegrid.readings.batches import Look, halving, lay_out_once, work_through
from probegrid.readings.identity import digest_of
from probegrid.readings.prompts import Prompt, shared_prefix
from probegrid.readings.store import Entry
from probegrid.readings.ways import read_way, write_way
from probegrid.schema import DecodingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress
    from probegrid.readings.templates import ChatTemplate

FORMAT = 1
"""Raised whenever the same description would give other log-probabilities than before."""

_COLUMNS = ("prompt", "logprobs", "seconds", "read_at")
_BETWEEN = -1
"""Stands between continuations in what they are known by: no token's id."""

Continuations = tuple[tuple[int, ...], ...]
"""Token ids of each option of one prompt."""


@dataclass(frozen=True)
class OptionReading:
    """The log-probabilities of every option's tokens."""

    key: str
    """Name of the store's entry."""
    logprobs: tuple[tuple[tuple[float, ...], ...], ...]
    """For each prompt, of each option, of each of its tokens: natural, at temperature 1, from the raw logits."""
    read_s: float
    """Seconds of reading, those of earlier runs included."""
    found_s: float = field(compare=False)
    """The seconds of it that were spent before: on what the store held."""
    way: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """How the model was read when the newest of them were, see `ways`."""


def continuations_of(
    prompts: Sequence[Prompt],
    texts: Callable[[Prompt], Sequence[str]],
    template: ChatTemplate,
    *,
    begins_turn: bool,
) -> tuple[Continuations, ...]:
    """The tokens of each prompt's options, each behind a space where the prompt goes on with a text that ends in none.

    Args:
        prompts: one a question.
        texts: the options of a prompt, as they are written.
        template: by which the prompts were tokenized.
        begins_turn: whether an option begins the assistant's turn, which begins with no space.

    Raises:
        ConfigError: the tokenizer joins an option with the prompt, so that its probability cannot be read off.
    """
    found = []
    for prompt in prompts:
        space = "" if begins_turn or prompt.text[-1:].isspace() else " "
        ids = template.tokenize([f"{prompt.text}{space}{text}" for text in texts(prompt)])
        length = len(prompt.token_ids)
        for text, of_option in zip(texts(prompt), ids, strict=True):
            if tuple(of_option[:length]) != prompt.token_ids or len(of_option) == length:
                raise ConfigError(
                    f"the tokenizer joins the option {text[:40]!r} of question {prompt.question.id} with the prompt, "
                    "so that its probability cannot be read off; set prompt.score_options=none."
                )
        found.append(tuple(tuple(of_option[length:]) for of_option in ids))
    return tuple(found)


def check_fit(prompts: Sequence[Prompt], options: Sequence[Continuations], context: int | None) -> None:
    """Refuse prompts that the model cannot hold together with their longest options; None is no limit.

    Raises:
        ConfigError: one passes ``context`` tokens.
    """
    for prompt, found in zip(prompts, options, strict=True):
        length = len(prompt.token_ids) + max(map(len, found))
        if context is not None and length > context:
            raise ConfigError(
                f"the prompt of question {prompt.question.id} and its longest option have {length} tokens, but the "
                f"model's context is {context}; lower prompt.num_few_shot, or take a model that holds more."
            )


def digest_of_options(prompt: Sequence[int], options: Continuations) -> str:
    """What a prompt and its options are known by."""
    return digest_of([*prompt, *(token for option in options for token in (_BETWEEN, *option))])


def read_options(
    prompts: Sequence[tuple[int, ...]],
    options: Sequence[Continuations],
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
) -> OptionReading:
    """Read what the store does not hold yet, and return all of it.

    Args:
        prompts: token ids of each; their order is the order of the reading.
        options: the continuations of each.
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
        RunError: one prompt with its options alone does not fit in memory.
    """
    entry = Entry(store_dir, "options", {"format": FORMAT, **description})
    digests = [digest_of_options(*pair) for pair in zip(prompts, options, strict=True)]
    asked = dict(zip(digests, zip(prompts, options, strict=True), strict=True))
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
    return OptionReading(
        entry.key, tuple(done[digest][0] for digest in digests), seconds, found_s, read_way(entry)
    )


def _read(entry: Entry, since: float | None) -> dict[str, tuple[tuple[tuple[float, ...], ...], float, float]]:
    """What an entry holds, by what it is known by: the newest log-probabilities, their seconds, and when."""
    rows = [row for table in entry.read_parts(_COLUMNS) for row in table.to_pylist()]
    return {
        row["prompt"]: (tuple(map(tuple, row["logprobs"])), row["seconds"], float(row["read_at"]))
        for row in sorted(rows, key=lambda row: float(row["read_at"]))
        if since is None or row["read_at"] >= since
    }


def _read_missing(
    entry: Entry,
    asked: Mapping[str, tuple[tuple[int, ...], Continuations]],
    missing: set[str],
    batch_size: str,
    tokenizer: PreTrainedTokenizerBase,
    loaded: LoadedModel,
    progress: Progress,
    since: float | None,
    readers: int,
) -> None:
    import pyarrow as pa

    from probegrid.inference.engine import Engine

    digests, prompts = list(asked), [prompt for prompt, _ in asked.values()]
    options = [found for _, found in asked.values()]
    length = shared_prefix(prompts)
    rows = max(map(len, options))
    # room for every option's row: as many samples would take it
    decoding = DecodingConfig(
        do_sample=rows > 1,
        num_generations=max(1, rows - 1),
        max_new_tokens=max(len(option) for found in options for option in found),
        batch_size=batch_size,
    )
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
        readers=readers if batch_size == "auto" else 1,
    )
    progress.start("options", total=len(prompts), done=len(prompts) - len(missing))

    def attempt(part: Sequence[int]) -> tuple[list[list[list[float]]], float] | None:
        started = time.perf_counter()
        found = engine.continuations([suffixes[index] for index in part], [options[index] for index in part])
        return None if found is None else (found, time.perf_counter() - started)

    def do(batch: Sequence[int]) -> None:
        for part, (logprobs, seconds) in halving([batch], attempt, lambda index: _too_large(prompts[index])):
            seconds += engine.take_setup_seconds()
            columns = {
                "prompt": pa.array([digests[index] for index in part], pa.string()),
                "logprobs": pa.array(logprobs, pa.list_(pa.list_(pa.float32()))),
                "seconds": pa.array([seconds / len(part)] * len(part), pa.float64()),
                "read_at": pa.array([time.time()] * len(part), pa.float64()),
            }
            entry.write_part(pa.table(columns))
            progress.advance(len(part), tokens=sum(len(suffixes[index]) for index in part))

    work_through(entry, batches, do, Look(entry, index_of, since), progress)


def _too_large(prompt: Sequence[int]) -> str:
    return (
        f"a prompt of {len(prompt)} tokens with its options alone does not fit in memory; choose another device_map or "
        "quantization."
    )
