"""Where the blocks of a decoder are, and where each computes.

Knows the module trees of transformers and what dispatching leaves in them; must not know what the blocks are used for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from probegrid.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks of a decoder, in order.

    Raises:
        CheckpointError: no list of modules, or several, are as long as the config says.
    """
    base: Any = model.base_model
    decoder = base.get_decoder()
    count = model.config.get_text_config().num_hidden_layers
    if isinstance(layers := getattr(decoder, "layers", None), nn.ModuleList) and len(layers) == count:
        return layers
    lists = [
        module for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if len(lists) != 1:
        raise CheckpointError(
            f"the blocks of {type(model).__name__} cannot be found: {len(lists)} of its lists of modules are {count} "
            "long; its activations cannot be read."
        )
    return lists[0]
