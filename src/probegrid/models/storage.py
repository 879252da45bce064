"""What share of a model's block weights is held in how many bits, as counted on the model in memory.

Knows the layers of the libraries that quantize by what their tensors look like, not by their names.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from torch import nn

from probegrid.models.blocks import decoder_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PACKED_FLOATS = ("float8", "float4")


def bits_of_blocks(model: PreTrainedModel) -> dict[int, float]:
    """The share of the blocks' weights that is held in so many bits each, by the bits; shares add up to 1.

    Constants beside packed weights (scales, maxima, tables) are no weights.
    """
    counted: Counter[int] = Counter()
    seen: set[int] = set()  # what several blocks hold is there once
    for block in decoder_blocks(model):
        for module in block.modules():
            _count(module, counted, seen)
    total = sum(counted.values()) or 1
    return {bits: counted[bits] / total for bits in sorted(counted)}


def storage_note(model: PreTrainedModel) -> str:
    """``blocks hold 97% of their weights in 4 bits, 3% in 16``."""
    shares = [
        f"{100 * share:.3g}% in {bits}" for bits, share in bits_of_blocks(model).items() if share >= 0.0005
    ]
    if not shares:
        return "no block is loaded"
    first, *others = shares
    return ", ".join([f"blocks hold {first.replace('% in', '% of their weights in')} bits", *others])


def _count(module: nn.Module, counted: Counter[int], seen: set[int]) -> None:
    """Add the weights that a module itself holds, if none before it holds them."""
    if isinstance(module, nn.ModuleList) and type(module).__name__ == "ParametrizationList":
        _count_parametrized(module, counted)
        return
    own = {
        name: tensor
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and (name in module._parameters or _is_packed(tensor))
    }
    inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
    packed = [tensor for tensor in own.values() if _is_packed(tensor)]
    # what packed weights had beside them may be left
    is_unpacked = "weight" in own and not _is_packed(own["weight"])
    if isinstance(inputs, int) and isinstance(outputs, int) and packed and not is_unpacked:
        largest = max(packed, key=lambda tensor: tensor.nbytes)
        counted[round(8 * largest.nbytes / (inputs * outputs))] += inputs * outputs
        own = {name: tensor for name, tensor in own.items() if name == "bias"}
    elif is_unpacked:
        own = {name: tensor for name, tensor in own.items() if name in ("weight", "bias")}
    elif type(module).__name__ in ("Bnb4bitParametrization", "Int8Rows"):
        return
    for name, tensor in own.items():
        if name in module._parameters and id(tensor) not in seen:
            seen.add(id(tensor))
            packed_in: torch.Tensor = getattr(
                tensor, "qdata", tensor
            )  # torchao's tensors pretend to be float
            counted[round(8 * packed_in.nbytes / max(1, tensor.numel()))] += tensor.numel()


def _count_parametrized(held: nn.Module, counted: Counter[int]) -> None:
    """Experts that are unpacked when they are used."""
    original: torch.Tensor = held.original  # type: ignore[assignment]
    unpacker = held[0]  # type: ignore[index]
    state = getattr(unpacker, "quant_state", None)
    if state is None:
        counted[8] += original.numel()
    else:
        counted[4] += state.shape.numel()


def _is_packed(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or any(name in str(tensor.dtype) for name in _PACKED_FLOATS)
