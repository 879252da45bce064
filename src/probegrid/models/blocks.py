"""Where the blocks of a decoder are, and where each computes.

Knows the module trees of transformers and what dispatching leaves in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from probegrid.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_BLOCKS = "_probegrid_blocks"
"""Attribute of a model whose blocks were cut: a tuple of the list that is left, so that it is no module of its own."""


def keep_blocks(model: PreTrainedModel, count: int) -> None:
    """Cut a decoder behind its first ``count`` blocks. Of none the first stays, for the place that it marks."""
    base: Any = model.base_model
    blocks = decoder_blocks(model)
    del blocks[max(1, count) :]
    for holder in (model, base):
        setattr(holder, _BLOCKS, (blocks,))


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks of a decoder, in order.

    Raises:
        CheckpointError: no list of modules, or several, are as long as the config says.
    """
    kept: tuple[nn.ModuleList] | None = getattr(model, _BLOCKS, None)
    if kept is not None:
        return kept[0]
    base: Any = model.base_model
    decoder = base.get_decoder()
    count = model.config.get_text_config().num_hidden_layers
    if isinstance(layers := getattr(decoder, "layers", None), nn.ModuleList):
        return layers  # some count a block twice whose attention calls twice
    lists = [
        module for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if len(lists) != 1:
        raise CheckpointError(
            f"the blocks of {type(model).__name__} cannot be found: {len(lists)} of its lists of modules are {count} "
            "long, where one is to be; probegrid loads, plans and reads a model block by block."
        )
    return lists[0]


EXECUTION_DEVICE = "_probegrid_device"
"""Attribute of a dispatched module: where it computes, wherever its weights wait."""


def execution_device(module: torch.nn.Module) -> torch.device:
    """Where a module computes: as it was dispatched, by us or by accelerate, else where its weights lie."""
    dispatched: torch.device | None = getattr(module, EXECUTION_DEVICE, None)
    if dispatched is not None:
        return dispatched
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is not None:
        return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return next(module.parameters()).device


def computing_devices(model: PreTrainedModel) -> list[torch.device]:
    """Where each block computes; where the weights lie, once each, of a model whose blocks cannot be told."""
    try:
        blocks = decoder_blocks(model)
    except CheckpointError:
        return list(dict.fromkeys(parameter.device for parameter in model.parameters()))
    return [execution_device(block) for block in blocks]
