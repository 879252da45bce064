"""A model that computes where its placement says: inputs move at the borders of devices, parked blocks take turns.

Takes the place of accelerate's hooks, which copy a block's tensors one by one when it is already needed, and
which do not know the constants of packed weights. The same for generation and for activations: whatever runs the
decoder loops over its blocks in order.

Knows a decoder's parts and hooks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probegrid.models.blocks import EXECUTION_DEVICE, decoder_blocks
from probegrid.models.border import cross
from probegrid.models.offload import Conveyor, ParkedBlock
from probegrid.models.parts import Place, modules_at
from probegrid.planning.placement import Device, Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CONVEYORS = "_probegrid_conveyors"
_PLACEMENT = "_probegrid_placement"
_COPIES = "_probegrid_copies"


def torch_device(device: Device) -> torch.device:
    """The device of a placement as torch names it; without CUDA a placement's GPUs are all the CPU."""
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", device)


def dispatch(model: PreTrainedModel, placement: Placement, parked: Mapping[int, ParkedBlock]) -> None:
    """Make a model compute where its placement says.

    Args:
        model: a causal model or a bare decoder, cut to the placement's blocks; the weights of each part lie on its
            device.
        placement: the device of each part.
        parked: the placement's streamed blocks, by index.
    """
    decoder: Any = model.base_model
    first, final = torch_device(placement.entrance), torch_device(placement.final_norm)
    for entrance in {model, decoder}:  # activations are read from the decoder alone
        entrance.register_forward_pre_hook(_Inputs(first, final), with_kwargs=True)
    embedding: Any = model.get_input_embeddings()
    _compute_on(embedding, torch_device(placement.embedding))
    embedding.register_forward_hook(lambda module, arguments, output: _on(output, first))
    for _, module in modules_at(model, Place.front):
        _compute_on(module, first)
    blocks = decoder_blocks(model)
    for block, device in zip(blocks, placement.blocks, strict=False):
        _compute_on(block, torch_device(device))
    for _, module in modules_at(model, Place.tail):
        _compute_on(module, final)
    if placement.head is not None:
        head: Any = model.get_output_embeddings()
        _compute_on(head, torch_device(placement.head))
    conveyors: dict[int, Conveyor] = {}
    for gpu, streamed in placement.streams.items():
        conveyors[gpu] = Conveyor([parked[index] for index in streamed], torch_device(gpu))
        for turn, index in enumerate(streamed):
            blocks[index].register_forward_pre_hook(_begin(conveyors[gpu], turn))
            blocks[index].register_forward_hook(_end(conveyors[gpu], turn))
    setattr(model, _CONVEYORS, conveyors)
    setattr(model, _PLACEMENT, placement)


def streamed_bytes(model: PreTrainedModel) -> dict[int, int]:
    """Bytes of weights that were copied to each GPU since the model was dispatched, by the GPU's index."""
    conveyors: dict[int, Conveyor] = getattr(model, _CONVEYORS, {})
    return {gpu: conveyor.copied_bytes for gpu, conveyor in conveyors.items()}


@contextmanager
def shared_by(model: PreTrainedModel, passes: int) -> Iterator[None]:
    """Let so many passes through a dispatched model share each copy of a streamed block: all take it in its turn."""
    conveyors: dict[int, Conveyor] = getattr(model, _CONVEYORS, {})
    for conveyor in conveyors.values():
        conveyor.serve(passes)
    try:
        yield
    finally:
        for conveyor in conveyors.values():
            conveyor.serve(1)


def placement_of(model: PreTrainedModel) -> Placement | None:
    """The placement that a model was dispatched by; None: it was not."""
    placement: Placement | None = getattr(model, _PLACEMENT, None)
    return placement


def _begin(conveyor: Conveyor, turn: int) -> Any:
    return lambda module, arguments: conveyor.acquire(turn)


def _end(conveyor: Conveyor, turn: int) -> Any:
    return lambda module, arguments, output: conveyor.release(turn)


def _compute_on(module: nn.Module, device: torch.device) -> None:
    """Let a module's inputs be moved to ``device`` before it computes."""
    setattr(module, EXECUTION_DEVICE, device)
    module.register_forward_pre_hook(_Mover(device), with_kwargs=True)


class _Mover:
    """A hook that moves a module's inputs. What the blocks share (rotations, positions) crosses once a pass."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        own, shared = _elsewhere(arguments, self._device), _elsewhere(tuple(named.values()), self._device)
        absent = [tensor for tensor in shared if self._device not in _copies(tensor)]
        if own or absent:
            moved = cross([*own, *absent], self._device)
            for tensor, copy in zip(absent, moved[len(own) :], strict=True):
                _copies(tensor)[self._device] = copy
            there = dict(zip(map(id, own), moved, strict=False))
        else:
            there = {}
        there |= {id(tensor): _copies(tensor)[self._device] for tensor in shared}
        return tuple(_replaced(value, there) for value in arguments), {
            name: _replaced(value, there) for name, value in named.items()
        }


class _Inputs:
    """A hook on the whole model: token ids stay for the embedding, indices of logits go where they are used."""

    def __init__(self, first: torch.device, final: torch.device) -> None:
        self._first = first
        self._devices: Mapping[str, torch.device] = {"logits_to_keep": final}

    def __call__(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, {
            name: value if name == "input_ids" else _on(value, self._devices.get(name, self._first))
            for name, value in named.items()
        }


def _on(value: Any, device: torch.device) -> Any:
    """A tensor on ``device``; anything else as it is."""
    if not isinstance(value, Tensor) or value.device == device:
        return value
    (moved,) = cross([value], device)
    return moved


def _elsewhere(values: tuple[Any, ...], device: torch.device) -> list[Tensor]:
    """The tensors among some values, and in tuples of them, that lie on another device."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, tuple):
            found += _elsewhere(value, device)
        elif isinstance(value, Tensor) and value.device != device:
            found.append(value)
    return found


def _replaced(value: Any, by: Mapping[int, Tensor]) -> Any:
    """A value, with the tensors in it for which there is another."""
    if isinstance(value, tuple):
        return tuple(_replaced(part, by) for part in value)
    return by.get(id(value), value)


def _copies(tensor: Tensor) -> dict[torch.device, Tensor]:
    """Copies of a tensor on other devices, which live as long as it."""
    copies: dict[torch.device, Tensor] = tensor.__dict__.setdefault(_COPIES, {})
    return copies
