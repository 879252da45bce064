"""From a checkpoint to a model that lies and computes where its placement says, one part after another.

A part is the embedding, a block, the final norm, the head, or what stands beside them. Each is read, quantized on the
device that will compute it, and parked if it streams, before the next is read: no device ever holds more than the
placement gives it and one unquantized matrix. transformers' own loading refuses to quantize beside modules in CPU
memory, or leaves those unquantized, and a mixture's experts always.

Knows the parts of a decoder, and how what a checkpoint stores becomes them (`conversion`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from probegrid.errors import CheckpointError
from probegrid.models.blocks import decoder_blocks
from probegrid.models.conversion import Conversion, Source
from probegrid.models.dispatch import dispatch, torch_device
from probegrid.models.offload import ParkedBlock
from probegrid.models.parts import Part, Place, modules_at, parts_of
from probegrid.models.quantization import Entries, fill, is_matrix, pack
from probegrid.models.skeleton import is_inner, skeleton, text_name, without_head
from probegrid.models.stored_matrices import packed_together
from probegrid.models.weights import Weights
from probegrid.planning.headers import NO_DECODER
from probegrid.planning.placement import Placement
from probegrid.schema import QuantizationMethod

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class MissingWeights(CheckpointError):
    """The files lack weights that the model has."""


class Parts(Protocol):
    """Where the parts of a model come from."""

    def part(self, part: Part, device: torch.device) -> Entries:
        """The tensors of a part, as ``quantization.fill`` takes them.

        Args:
            part: of the model.
            device: where matrices are quantized, if they have to be.

        Raises:
            CheckpointError: a tensor cannot be read.
        """
        ...


class CheckpointParts:
    """The parts of a checkpoint; the matrices of its blocks are quantized as they are read, or taken as stored."""

    def __init__(
        self, model: PreTrainedModel, weights: Weights, method: QuantizationMethod, dtype: torch.dtype
    ) -> None:
        """Match the names in the files with those of the model; read nothing yet.

        Args:
            model: on the meta device.
            weights: the checkpoint's tensors.
            method: how the matrices of the blocks are held, where they are not stored quantized.
            dtype: what weights are converted to, before they are quantized.
        """
        self._model = model
        self._weights = weights
        self._method = method
        self._dtype_of = dtypes_of(model, dtype)

    @cached_property
    def _conversion(self) -> Conversion:
        alias: Callable[[str], str] = text_name if is_inner(self._model) else lambda name: name
        return Conversion(self._model, self._weights.names, alias)

    @property
    def unplaced(self) -> list[str]:
        """Names in the files that the model has no place for: not those of what sees or predicts further tokens."""
        known = [
            *(self._model._keys_to_ignore_on_load_unexpected or ()),
            r"rotary_emb\.inv_freq$",
            r"position_ids$",
        ]
        expected = [NO_DECODER, *map(re.compile, known)]
        names = [
            name for name in self._conversion.unplaced if not any(each.search(name) for each in expected)
        ]
        return [name for name in names if text_name(name) != name] if is_inner(self._model) else names

    def part(self, part: Part, device: torch.device) -> Entries:
        """As ``Parts.part``."""
        entries: Entries = {}
        for source in self._conversion.sources(part.tensors):
            if any(name in self._conversion.constants for name, _ in source.names):
                entries |= self._stored(source)
            else:
                entries |= self._made(source, part, device)
        return entries

    def _made(self, source: Source, part: Part, device: torch.device) -> Entries:
        dtype = self._dtype_of(source.target)
        entries: Entries = {}
        made = source.convert(self._model, lambda name: self._weights.read(name).to(dtype))
        quantizes = part.place is Place.block and self._method.packs
        for name, tensor in made.items():
            if quantizes and name in part.tensors and is_matrix(self._model, name):
                entries |= pack(self._model, name, tensor.to(device), self._method)
            else:
                entries[name] = tensor
        return entries

    def _stored(self, source: Source) -> Entries:
        """A matrix that is stored packed, or several that become one."""
        stored: dict[str, Entries] = {}
        for name, _ in source.names:
            stored[name] = {name: self._weights.read(name)}
            for constant in self._conversion.constants.get(name, ()):
                stored[name][constant] = self._weights.read(constant)
        return packed_together(self._model, source, stored)


def assemble(
    config: PreTrainedConfig, placement: Placement, parts: Parts, dtype: torch.dtype
) -> PreTrainedModel:
    """Build a model part by part, each where its placement puts it.

    Args:
        config: the whole model's; its blocks are cut to the placement's.
        placement: the device of each part. Without a head, the model is the bare decoder and its final norm the
            identity: its last hidden state is the residual stream after the last block.
        parts: the weights.
        dtype: type of the weights that are not quantized, and of the computation.

    Raises:
        CheckpointError: a weight is missing or has another shape than its config says.
    """
    return assembled(skeleton(config, len(placement.blocks), dtype), placement, parts, dtype)


def assembled(
    model: PreTrainedModel, placement: Placement, parts: Parts, dtype: torch.dtype
) -> PreTrainedModel:
    """As ``assemble``, of a model on the meta device with its head and the placement's blocks, which it fills."""
    parked: dict[int, ParkedBlock] = {}
    missing: list[str] = []
    dtype_of = dtypes_of(model, dtype)
    blocks = decoder_blocks(model)
    for part in parts_of(model):
        if not _is_placed(part, placement):
            missing += part.tensors
            continue
        device = torch_device(part.device(placement))
        try:
            entries = _without_tied_copies(model, parts.part(part, device))
            missing += fill(model, part.tensors, entries, dtype_of=dtype_of, device=device)
        except CheckpointError as error:
            raise CheckpointError(f"{part.name} cannot be loaded: {error}") from error
        if part.place is Place.block and part.index in placement.streamed:
            if lacking := [name for name in part.tensors if name in missing]:
                raise _lacks(lacking)
            parked[part.index] = ParkedBlock(blocks[part.index])
    _tie(model, missing, placement)
    _move_buffers(model, placement)
    if placement.head is None:
        model = without_head(model)
    dispatch(model, placement, parked)
    model.eval()
    return model


def _is_placed(part: Part, placement: Placement) -> bool:
    """Whether a placement has a part: one without a head ends behind its last block."""
    if part.place is Place.block:
        return part.index < len(placement.blocks)
    return placement.head is not None or part.place not in (Place.tail, Place.head)


def _without_tied_copies(model: PreTrainedModel, entries: Entries) -> Entries:
    """What is no copy of a tensor that is there already and that the config ties it to.

    Where the files hold another one than the config says, it counts, as in transformers' own loading.
    """
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    kept: Entries = {}
    for name, tensor in entries.items():
        source = model.get_parameter_or_buffer(tied[name]) if name in tied else None
        if source is None or source.is_meta or not torch.equal(source.cpu(), tensor.to("cpu", source.dtype)):
            kept[name] = tensor
    return kept


def _tie(model: PreTrainedModel, missing: list[str], placement: Placement) -> None:
    """Let tensors be those that they are tied to, as transformers' own loading does.

    Raises:
        CheckpointError: some are neither in the files nor tied to what is.
    """
    still = set(missing)
    if getattr(model, "all_tied_weights_keys", None):
        model.tie_weights(missing_keys=still, recompute_mapping=False)
    unplaced = {name for part in parts_of(model) if not _is_placed(part, placement) for name in part.tensors}
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_missing or ()]
    lacking = sorted(name for name in still - unplaced if not any(each.search(name) for each in ignored))
    if lacking:
        raise _lacks(lacking)


def _lacks(names: Sequence[str]) -> MissingWeights:
    return MissingWeights(
        f"it lacks {len(names)} weights of its architecture, {names[0]} among them; "
        "finish its download, or correct its config.json."
    )


def _move_buffers(model: PreTrainedModel, placement: Placement) -> None:
    """Put what is computed from the config alone (rotations, masks) beside what computes with it."""
    first = torch_device(placement.entrance)
    for _, module in modules_at(model, Place.front):
        _buffers_to(module, first)
    for index, (block, device) in enumerate(zip(decoder_blocks(model), placement.blocks, strict=False)):
        if index not in placement.streamed:  # theirs come and go with the weights
            _buffers_to(block, torch_device(device))


def _buffers_to(module: nn.Module, device: torch.device) -> None:
    for buffer in module.buffers():
        if buffer.device != device and buffer.device.type != "meta":
            buffer.data = buffer.data.to(device)


def dtypes_of(model: PreTrainedModel, dtype: torch.dtype) -> Callable[[str], torch.dtype]:
    """The type of each tensor of a model that computes in ``dtype``: some families keep a few in float32."""
    plan: dict[str, torch.dtype] = model._get_dtype_plan(dtype)
    kept = [
        (re.compile(name.replace("*", ".*")), kind) for name, kind in plan.items()
    ]  # as transformers reads it
    own: dict[str, torch.dtype] = {name: tensor.dtype for name, tensor in model.state_dict().items()}

    def dtype_of(name: str) -> torch.dtype:
        for pattern, kind in kept:
            if pattern.search(name):
                return kind
        return own.get(name, dtype)

    return dtype_of
