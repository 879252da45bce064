"""The reading *activations*: read once, stored layer by layer, shared by every probe that needs them.

One forward pass a passage, all its examples and all the layers that are missing from it. An entry of the store is a
model; its rows are known by the passage's tokens and spans. Knows passages, batches and the store.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from probegrid.errors import RunError
from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.inference.direct import compute_directly
from probegrid.inference.forest import count, divided
from probegrid.inference.residual import ResidualReader, Row, Rows, prefix_of
from probegrid.inference.residual_trial import rows_that_agree
from probegrid.models.blocks import execution_device
from probegrid.models.fusing import fuse, pays
from probegrid.planning.workload import PASS_TOKENS
from probegrid.readings.batches import Batch, lay_out, lay_out_once, work_through
from probegrid.readings.layer_store import LayerStore
from probegrid.readings.spans import Example, Passage
from probegrid.readings.store import Entry
from probegrid.readings.ways import read_way, write_way

if TYPE_CHECKING:
    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress

FORMAT = 2
"""Raised whenever the same description would give other activations than before."""


@dataclass(frozen=True, eq=False)
class ActivationReading:
    """The residual stream at some layers, for every example of a set of passages."""

    key: str
    """Name of the store's entry, which all layers share."""
    layers: tuple[int, ...]
    examples: tuple[Example, ...]
    """In the order of the passages; row i of every layer is example i."""
    read_s: float
    """Seconds that reading these layers took, those of earlier runs included."""
    found_s: float = field(compare=False)
    """The seconds of it that were spent before: on what the store held."""
    read_tokens: int
    """Tokens of all passages, padding left out."""
    stores: Mapping[int, LayerStore]
    """Where the values of each layer are."""
    counts: tuple[tuple[str, int], ...]
    """Of each passage, its digest and its examples."""
    way: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """How the model was read when the newest of them were, see `ways`."""

    def values(self, layer: int) -> Tensor:
        """Activations [n, d] bfloat16 of one layer, from disk.

        Raises:
            KeyError: the layer is not one of ``layers``.
        """
        return self.stores[layer].read(self.counts)

    def stack(self) -> Tensor:
        """Every layer: [n, layers, d] bfloat16, on a GPU if there is one."""
        import torch

        first = self.values(self.layers[0])
        stacked = first.new_empty(len(first), len(self.layers), first.shape[1])
        for column, layer in enumerate(
            self.layers
        ):  # one layer after another: they may be all that memory holds
            stacked[:, column] = self.values(layer)
            self.stores[layer].forget()
        return stacked.cuda() if torch.cuda.is_available() else stacked

    def metrics(self) -> dict[str, float]:
        """``read_s``, ``tokens_per_s`` and ``examples_per_s``."""
        seconds = max(self.read_s, 1e-9)
        return {
            "read_s": self.read_s,
            "tokens_per_s": self.read_tokens / seconds,
            "examples_per_s": len(self.examples) / seconds,
        }

    @property
    def ids(self) -> tuple[str, ...]:
        """Id of each example."""
        return tuple(example.id for example in self.examples)

    @property
    def conversations(self) -> tuple[str, ...]:
        """Id of each example's conversation; of a question, its group."""
        return tuple(example.conversation for example in self.examples)

    @property
    def texts(self) -> tuple[str, ...]:
        """Text of each example."""
        return tuple(example.text for example in self.examples)

    @property
    def labels(self) -> tuple[bool, ...]:
        """Label of each example."""
        return tuple(example.label for example in self.examples)

    @property
    def sources(self) -> tuple[str, ...]:
        """Source of each example; empty where it has none."""
        return tuple(example.source for example in self.examples)


def read_activations(
    passages: Sequence[Passage],
    layers: Sequence[int],
    *,
    description: Mapping[str, Any],
    store_dir: str,
    open_model: Callable[[int], LoadedModel],
    progress: Progress,
    batch_tokens: int | None = None,
    since: float | None = None,
    readers: int = 1,
    began: float | None = None,
) -> ActivationReading:
    """Read what the store does not hold yet, and return all of it.

    Args:
        passages: token ids and what is read of them; their order is the order of the reading.
        layers: layers to read (layer L is the residual stream after L blocks).
        description: what determines what the model makes of tokens (`identity.describe_model`).
        store_dir: the store's folder.
        open_model: loads a model of at least so many blocks; called only if something is missing, with the
            deepest layer that is.
        progress: told how many passages are done.
        batch_tokens: most tokens in a forward pass, padding included; None: by the plan, else by the device.
            Changes speed, never the entry.
        since: what was read before (seconds since the epoch) is read again; None: nothing is.
        readers: processes that share the reading: the batches are laid out for so many.
        began: when those who share it began (seconds since the epoch): what is older was spent before. None: now.

    Raises:
        ConfigError: the model has fewer blocks than a layer needs.
        StoreError: a file that may not be read, or a full disk.
        RunError: an activation is not a finite number, or one passage alone does not fit in memory.
    """
    entry = entry_of_activations(store_dir, description)
    stores = {layer: LayerStore(entry, layer) for layer in sorted(set(layers))}
    unique, began = {passage.digest: passage for passage in passages}, began or time.time()
    missing = {layer: unique.keys() - store.stored(since) for layer, store in stores.items()}
    lacking = [layer for layer in stores if missing[layer]]
    if lacking:
        for sentence in entry.damage:
            progress.say(sentence)
        shared = _Shared(entry, list(unique.values()), missing, stores, since, readers)
        _read_missing(shared, open_model(lacking[-1]), batch_tokens, progress)
        for layer in lacking:
            stores[layer].stored()
            stores[layer].merge()
    digests = [passage.digest for passage in passages]
    return ActivationReading(
        key=entry.key,
        layers=tuple(stores),
        examples=tuple(example for passage in passages for example in passage.examples),
        read_s=sum(store.seconds(digests) for store in stores.values()),
        found_s=sum(store.seconds(digests, before=began) for store in stores.values()),
        read_tokens=sum(len(passage.token_ids) for passage in unique.values()),
        stores=stores,
        counts=tuple((passage.digest, len(passage.spans)) for passage in passages),
        way=read_way(entry),
    )


def entry_of_activations(store_dir: str, description: Mapping[str, Any]) -> Entry:
    """The store's entry for the activations of a model."""
    return Entry(store_dir, "activations", {"format": FORMAT, **description})


@dataclass(frozen=True)
class _Shared:
    """What is missing of a reading, for all who share it."""

    entry: Entry
    passages: Sequence[Passage]
    missing: Mapping[int, set[str]]
    """Digests of the passages that each layer lacks."""
    stores: Mapping[int, LayerStore]
    since: float | None
    readers: int

    def look(self) -> set[int]:
        """Indices of the passages that the deepest layer which lacked them has by now: it is written last."""
        found: set[int] = set()
        for layer, indices in self._deepest.items():
            self.stores[layer].list_anew()
            stored = self.stores[layer].stored(self.since)
            found |= {index for index in indices if self.passages[index].digest in stored}
        return found

    @cached_property
    def _deepest(self) -> dict[int, list[int]]:
        """The deepest layer that lacks each passage which some layer lacks, with the passages' indices."""
        found: dict[int, list[int]] = {}
        for index, passage in enumerate(self.passages):
            layers = [layer for layer, lacking in self.missing.items() if passage.digest in lacking]
            if layers:
                found.setdefault(max(layers), []).append(index)
        return found

    def lacking(self, batch: Sequence[int]) -> list[int]:
        """The layers that lack some of a batch, rising."""
        digests = {self.passages[index].digest for index in batch}
        return sorted(layer for layer, lacking in self.missing.items() if not lacking.isdisjoint(digests))


def _read_missing(shared: _Shared, loaded: LoadedModel, batch_tokens: int | None, progress: Progress) -> None:
    embedding: Any = loaded.model.get_input_embeddings()
    of_device = PASS_TOKENS[execution_device(embedding).type]
    most = batch_tokens or (loaded.limits.pass_tokens if loaded.limits else of_device)
    passages = shared.passages
    anywhere = set().union(*shared.missing.values())
    wanted = {index for index, passage in enumerate(passages) if passage.digest in anywhere}
    digests = [passage.digest for passage in passages]
    # by all of them, so that a reading which was interrupted goes on as it began
    asked = [Row(passage.token_ids, passage.spans, passage.prompt) for passage in passages]
    if pays(loaded.model, sum(len(passage.token_ids) for passage in passages)):
        fuse(loaded.model)
        compute_directly(loaded.model)
    report, rows = rows_that_agree(
        loaded.model, [layer for layer, lacking in shared.missing.items() if lacking], asked
    )
    together = _Together(passages, rows, prefix_of(asked) if rows is Rows.shared else [], most)
    batches = lay_out_once(
        shared.entry,
        digests,
        wanted,
        together.lay_out,
        readers=shared.readers,
        # laid out by tokens that are read once: padded, they would be many times as many
        way=rows.value if rows is Rows.shared else None,
    )
    write_way(shared.entry, report)
    progress.say(report.sentence())
    progress.start("activations", total=len(passages), done=len(passages) - len(wanted))
    _collect(shared, batches, loaded, progress, together)


@dataclass(frozen=True)
class _Together:
    """How passages are read together, and how many tokens at once."""

    passages: Sequence[Passage]
    rows: Rows
    prefix: Sequence[int]
    """What all begin with, where it is shared."""
    pass_tokens: int

    def lay_out(self, indices: Sequence[int]) -> list[list[int]]:
        """Divide passages into batches."""
        if self.rows is Rows.shared:
            batches = divided([self._own(index) for index in indices], self.pass_tokens)
        else:
            batches = lay_out([len(self.passages[index].token_ids) for index in indices], self.pass_tokens)
        return [[indices[place] for place in batch] for batch in batches]

    def tokens(self, batch: Sequence[int]) -> int:
        """Of a batch's pass, padding included."""
        if self.rows is Rows.shared:
            return count([self._own(index) for index in batch])
        return len(batch) * max(len(self.passages[index].token_ids) for index in batch)

    def _own(self, index: int) -> tuple[int, ...]:
        return self.passages[index].token_ids[len(self.prefix) :]


def _collect(
    shared: _Shared, batches: Sequence[Batch], loaded: LoadedModel, progress: Progress, together: _Together
) -> None:
    """Read and store the layers that are missing from each batch; one that memory cannot hold is halved."""
    most = math.inf

    @lru_cache(maxsize=1)  # a prefix is held for one set of layers at a time
    def reader_of(layers: tuple[int, ...]) -> ResidualReader:
        return ResidualReader(loaded.model, layers, together.rows, together.prefix, together.pass_tokens)

    def do(batch: Sequence[int]) -> None:
        nonlocal most
        layers = shared.lacking(batch)
        reader = reader_of(tuple(layers))
        pending = [list(batch)]
        while pending:
            part = pending.pop(0)
            chosen = [shared.passages[index] for index in part]
            tokens = together.tokens(part)
            started = time.perf_counter()
            values = _read_or_none(reader, chosen) if tokens <= most or len(part) == 1 else None
            if values is None:
                if len(part) == 1:
                    raise RunError(
                        f"conversation {chosen[0].id} alone ({tokens} tokens) does not fit in memory; choose another "
                        "device_map or quantization, or leave it out of the dataset."
                    )
                most = min(most, tokens - 1)
                pending[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
                continue
            share = (time.perf_counter() - started) / len(layers) / len(part)
            for layer in layers:  # the deepest last: what it has, all have
                _check_finite(layer, values[layer], chosen)
                shared.stores[layer].write(
                    [passage.digest for passage in chosen],
                    [len(passage.spans) for passage in chosen],
                    values[layer],
                    [share] * len(part),
                )
            progress.advance(len(part), tokens=sum(len(passage.token_ids) for passage in chosen))

    work_through(shared.entry, batches, do, shared.look, progress)


def _read_or_none(reader: ResidualReader, passages: Sequence[Passage]) -> dict[int, Tensor] | None:
    """The activations of a batch; None if memory ran out, which is freed."""
    token_ids, spans = [passage.token_ids for passage in passages], [passage.spans for passage in passages]
    prompts = [passage.prompt for passage in passages]
    return or_none_if_out_of_memory(lambda: reader.read(token_ids, spans, prompts=prompts))


def _check_finite(layer: int, values: Tensor, passages: Sequence[Passage]) -> None:
    finite = values.isfinite().all(dim=1)
    if finite.all():
        return
    owners = [passage.id for passage in passages for _ in passage.spans]
    raise RunError(
        f"the activations of conversation {owners[int(finite.int().argmin())]} at layer {layer} are not finite; "
        "float16 overflows in some models: compute in model.dtype=float32, or in bfloat16 on a card from Ampere on; "
        "else the weights are damaged."
    )
