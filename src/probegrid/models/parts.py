"""The parts of any decoder: what comes before its blocks, the blocks, what comes after them, the head.

Knows the module trees of transformers' models: blocks are one list of modules of the decoder; everything else of it is
computed before them or after them, as its name says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from torch import nn

from probegrid.models.blocks import decoder_blocks
from probegrid.planning.placement import Device, Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BEFORE = re.compile(r"emb(?!.*unembed)|wte|wpe|rotary|rope|project_in|per_layer|position")
"""Names of what is computed before the blocks although it may be called a norm too."""
_AFTER = re.compile(r"norm|ln_f|final|project_out|unembed|\bhead|hc_head")


class Place(Enum):
    """Where in the order of computing a part stands."""

    embedding = "embedding"
    front = "front"
    """Beside the embedding: positions, their norm, embeddings of layers, blocks that several layers share."""
    block = "block"
    tail = "tail"
    """Behind the last block: the final norm."""
    head = "head"


@dataclass(frozen=True, slots=True)
class Part:
    """Some tensors of a model that lie on one device."""

    name: str
    """Of the module that holds them (``model.layers.7``); of the tensor itself where a model holds it directly."""
    place: Place
    tensors: tuple[str, ...]
    """Their names in the model's ``state_dict``."""
    index: int = -1
    """Of a block."""

    def device(self, placement: Placement) -> Device:
        """Where it lies at rest, streamed blocks apart."""
        if self.place is Place.block:
            return placement.blocks[self.index]
        if self.place is Place.embedding:
            return placement.embedding
        if self.place is Place.front:
            return placement.entrance
        return placement.final_norm if self.place is Place.tail else (placement.head or placement.final_norm)


def parts_of(model: PreTrainedModel) -> list[Part]:
    """Every part of a model that has tensors, in the order they are computed."""
    names = {module: name for name, module in model.named_modules(remove_duplicate=True)}
    blocks = names[decoder_blocks(model)]
    grouped: dict[tuple[str, Place, int], list[str]] = {}
    places = _Places(model, names, blocks)
    for tensor in model.state_dict():
        grouped.setdefault(places.of(tensor), []).append(tensor)
    order = list(Place)
    parts = [Part(name, place, tuple(held), index) for (name, place, index), held in grouped.items()]
    return sorted(parts, key=lambda part: (order.index(part.place), part.index))


def modules_at(model: PreTrainedModel, place: Place) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the decoder's own children at a place, those without tensors (rotations) too."""
    names = {module: name for name, module in model.named_modules(remove_duplicate=True)}
    places = _Places(model, names, names[decoder_blocks(model)])
    for child_name, child in _decoder(model).named_children():
        name = f"{places.decoder}.{child_name}" if places.decoder else child_name
        if places.of(f"{name}.weight")[1] is place:
            yield name, child


def _decoder(model: PreTrainedModel) -> Any:
    base: Any = model.base_model
    return base.get_decoder()


class _Places:
    """Tells a tensor's part by its name."""

    def __init__(self, model: PreTrainedModel, names: dict[nn.Module, str], blocks: str) -> None:
        self._block = re.compile(rf"{re.escape(blocks)}\.(\d+)\.")
        self._blocks = blocks
        holder = blocks.rpartition(".")[0]
        self.decoder = names.get(_decoder(model), holder)
        embedding = model.get_input_embeddings()
        self._embedding = names.get(embedding, "?") if embedding is not None else "?"
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        self._head = "?" if head is None else names.get(head, "?")

    def of(self, tensor: str) -> tuple[str, Place, int]:
        """Name of the module, place and index of the block."""
        if found := self._block.match(tensor):
            return f"{self._blocks}.{found[1]}", Place.block, int(found[1])
        if tensor.startswith(f"{self._embedding}."):
            return self._embedding, Place.embedding, -1
        if tensor.startswith(f"{self._head}."):
            return self._head, Place.head, -1
        inside = f"{self.decoder}." if self.decoder else ""
        if not tensor.startswith(inside):
            return tensor.rpartition(".")[0] or tensor, Place.head, -1
        child = tensor.removeprefix(inside).split(".")[0]
        name = f"{inside}{child}"
        if tensor.startswith(f"{self._blocks}."):
            return name, Place.front, -1
        after = _AFTER.search(child) and not _BEFORE.search(child)
        return name, Place.tail if after else Place.front, -1
