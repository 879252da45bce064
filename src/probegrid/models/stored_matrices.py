"""Matrices that a checkpoint stores packed by bitsandbytes, as the tensors of the model.

One matrix is taken as it is. Experts that were packed one by one become one packed tensor without a weight being
rounded again: stacking and joining rows are the same of packed rows and of their constants, row by row.

Knows the layout of bitsandbytes' constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probegrid.errors import CheckpointError
from probegrid.models.conversion import Source
from probegrid.models.quantization import Entries

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def packed_together(model: PreTrainedModel, source: Source, stored: Mapping[str, Entries]) -> Entries:
    """The packed tensor that some stored matrices make.

    Args:
        model: that it is of.
        source: which matrices, and how they are joined.
        stored: each matrix with its constants, all by their names in the files.

    Returns:
        As ``quantization.pack`` does.

    Raises:
        CheckpointError: the matrices would have to be cut or turned, which packed rows cannot be.
    """
    if source.is_renaming:
        ((name, entries),) = stored.items()
        return _renamed(name, source.target, entries)
    try:
        if all(any(key.endswith(".SCB") for key in entries) for entries in stored.values()):
            return _joined_int8(model, source, stored)
        return _joined_4bit(model, source, stored)
    except (RuntimeError, StopIteration, ValueError) as error:
        raise CheckpointError(
            f"{source.target} is stored in quantized pieces that cannot be joined as they are; use a checkpoint that "
            "is not quantized, with quantization=nf4 or int8."
        ) from error


def _renamed(name: str, target: str, entries: Entries) -> Entries:
    """The same by the name in the model: constants of int8 follow the module, those of NF4 the matrix."""
    module, target_module = name.removesuffix(".weight"), target.removesuffix(".weight")
    return {
        target + key.removeprefix(name) if key.startswith(f"{name}.") or key == name
        else target_module + key.removeprefix(module): value
        for key, value in entries.items()
    }  # fmt: skip


def _joined_int8(model: PreTrainedModel, source: Source, stored: Mapping[str, Entries]) -> Entries:
    rows = source.convert(model, lambda name: stored[name][name])
    scales = source.convert(
        model, lambda name: next(v for key, v in stored[name].items() if key.endswith(".SCB")).unsqueeze(1)
    )
    if any(scales[name].shape[:-1] != rows[name].shape[:-1] or scales[name].shape[-1] != 1 for name in rows):
        raise ValueError("rows were cut")
    return {**rows, **{f"{name}.SCB": scales[name].flatten() for name in rows}}


def _joined_4bit(model: PreTrainedModel, source: Source, stored: Mapping[str, Entries]) -> Entries:
    from bitsandbytes.functional import QuantState, dequantize_blockwise

    states: dict[str, Any] = {}
    for name, entries in stored.items():
        constants = {key.removeprefix(f"{name}."): value for key, value in entries.items() if key != name}
        states[name] = QuantState.from_dict(constants, device=torch.device("cpu"))

    def maxima(name: str) -> Tensor:
        state = states[name]
        found: Tensor = state.absmax
        if state.nested:
            found = dequantize_blockwise(found, state.state2) + state.offset
        rows, columns = state.shape
        if columns % state.blocksize:
            raise ValueError("a block of weights is of two rows")
        return found.float().view(rows, columns // state.blocksize)

    def packed(name: str) -> Tensor:
        rows, columns = states[name].shape
        return stored[name][name].view(rows, columns // 2)

    weights, largest = source.convert(model, packed), source.convert(model, maxima)
    first = next(iter(states.values()))
    joined: Entries = {}
    for name, weight in weights.items():
        shape = torch.Size((*weight.shape[:-1], 2 * weight.shape[-1]))
        if largest[name].shape[:-1] != weight.shape[:-1] or len(shape) != 3:
            raise ValueError("rows were cut")
        state = QuantState(
            absmax=largest[name].flatten(),
            shape=shape,
            code=first.code,
            blocksize=first.blocksize,
            quant_type=first.quant_type,
            dtype=first.dtype,
        )
        joined[name] = weight.reshape(-1, 1)
        joined |= {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
    return joined
