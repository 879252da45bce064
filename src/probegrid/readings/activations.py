"""The reading *activations*: read once, stored layer by layer, shared by every probe that needs them.

Knows passages, batches and the store.

One forward pass a passage, all its examples and all the layers that are missing from it. Batches are laid out
once for the whole reading and written down, so that an interrupted reading, or one that adds a layer, goes on with
the very batches it would have had.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from probegrid.errors import RunError
from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.inference.residual import ResidualReader
from probegrid.models.blocks import execution_device
from probegrid.planning.workload import PASS_TOKENS
from probegrid.readings.batches import lay_out
from probegrid.readings.layer_store import LayerStore
from probegrid.readings.spans import Example, Passage
from probegrid.readings.store import Entry

if TYPE_CHECKING:
    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress

FORMAT = 1
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
    read_tokens: int
    """Tokens of all passages, padding left out."""
    stores: Mapping[int, LayerStore]
    """Where the values of each layer are."""
    counts: Mapping[int, int]
    """Examples of each passage, by its index."""

    def values(self, layer: int) -> Tensor:
        """Activations [n, d] bfloat16 of one layer, from disk.

        Raises:
            KeyError: the layer is not one of ``layers``.
            StoreError: a part is damaged.
        """
        return self.stores[layer].read(self.counts)

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
) -> ActivationReading:
    """Read what the store does not hold yet, and return all of it.

    Args:
        passages: token ids and what is read of them; their order is the order of the reading.
        layers: layers to read (layer L is the residual stream after L blocks).
        description: what determines the activations besides the tokens (checkpoint, dtype, quantization).
        store_dir: the store's folder.
        open_model: loads a model of at least so many blocks; called only if something is missing, with the
            deepest layer that is.
        progress: told how many passages are done.
        batch_tokens: most tokens in a forward pass, padding included; None: by the plan, else by the device.
            Changes speed, never the entry.

    Raises:
        ConfigError: the model has fewer blocks than a layer needs.
        StoreError: a damaged entry or a full disk.
        RunError: an activation is not a finite number, or one passage alone does not fit in memory.
    """
    entry = Entry(store_dir, "activations", {"format": FORMAT, **description, "passages": _digest(passages)})
    stores = {layer: LayerStore(entry, layer) for layer in sorted(set(layers))}
    missing = {layer: set(range(len(passages))) - store.passages() for layer, store in stores.items()}
    lacking = [layer for layer in stores if missing[layer]]
    if lacking:
        loaded = open_model(lacking[-1])
        batches = _batches(entry, passages, loaded, batch_tokens)
        done = len(passages) - len(set().union(*missing.values()))
        progress.start("activations", total=len(passages), done=done)
        _collect(passages, batches, missing, stores, loaded, progress)
    return ActivationReading(
        key=entry.key,
        layers=tuple(stores),
        examples=tuple(example for passage in passages for example in passage.examples),
        read_s=sum(part.seconds for store in stores.values() for part in store.parts()),
        read_tokens=sum(len(passage.token_ids) for passage in passages),
        stores=stores,
        counts={index: len(passage.spans) for index, passage in enumerate(passages)},
    )


def _digest(passages: Sequence[Passage]) -> str:
    """SHA-256 over every token that is read and every span, and over nothing else: labels change no activation."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(json.dumps([passage.token_ids, passage.spans]).encode())
    return digest.hexdigest()


def _batches(
    entry: Entry, passages: Sequence[Passage], loaded: LoadedModel, batch_tokens: int | None
) -> list[list[int]]:
    """The entry's batches, laid out if this is its first reading."""
    batches: list[list[int]] | None = entry.read_json("batches.json")
    if batches is None:
        embedding: Any = loaded.model.get_input_embeddings()
        of_device = PASS_TOKENS[execution_device(embedding).type]
        most = batch_tokens or (loaded.limits.pass_tokens if loaded.limits else of_device)
        batches = lay_out([len(passage.token_ids) for passage in passages], most)
        entry.write_json("batches.json", batches)
    return batches


def _collect(
    passages: Sequence[Passage],
    batches: Sequence[Sequence[int]],
    missing: Mapping[int, set[int]],
    stores: Mapping[int, LayerStore],
    loaded: LoadedModel,
    progress: Progress,
) -> None:
    """Read and store the layers that are missing from each batch; one that memory cannot hold is halved."""
    most = math.inf
    for batch in batches:
        layers = [layer for layer, lacking in missing.items() if not lacking.isdisjoint(batch)]
        if not layers:
            continue
        reader = ResidualReader(loaded.model, layers)
        pending = [[index for index in batch if any(index in missing[layer] for layer in layers)]]
        while pending:
            part = pending.pop(0)
            chosen = [passages[index] for index in part]
            tokens = len(part) * max(len(passage.token_ids) for passage in chosen)
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
            seconds = (time.perf_counter() - started) / len(layers)
            for layer, of_layer in values.items():
                _check_finite(layer, of_layer, chosen)
                stores[layer].write(part, of_layer, seconds)
            progress.advance(len(part), tokens=sum(len(passage.token_ids) for passage in chosen))


def _read_or_none(reader: ResidualReader, passages: Sequence[Passage]) -> dict[int, Tensor] | None:
    """The activations of a batch; None if memory ran out, which is freed."""
    token_ids, spans = [passage.token_ids for passage in passages], [passage.spans for passage in passages]
    return or_none_if_out_of_memory(lambda: reader.read(token_ids, spans))


def _check_finite(layer: int, values: Tensor, passages: Sequence[Passage]) -> None:
    finite = values.isfinite().all(dim=1)
    if finite.all():
        return
    owners = [passage.id for passage in passages for _ in passage.spans]
    raise RunError(
        f"the activations of conversation {owners[int(finite.int().argmin())]} at layer {layer} are not finite; "
        "float16 overflows in some models: try model.dtype=bfloat16; else the weights are damaged."
    )
