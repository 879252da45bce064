"""The last block of a pass, computed for the tokens alone whose logits are asked for.

Of all other tokens it owes no more than keys and values, to those that come later. Knows blocks, and who is attending.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from torch import Tensor

from probegrid.errors import CheckpointError
from probegrid.inference.packed import who_attends
from probegrid.models.blocks import decoder_blocks
from probegrid.models.border import to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SPARES = "_probegrid_spares"
_BLOCK = [
    "residual = hidden_states",
    "hidden_states = self.input_layernorm(hidden_states)",
    "hidden_states, _ = self.self_attn(",
    "hidden_states=hidden_states,",
    "attention_mask=attention_mask,",
    "position_ids=position_ids,",
    "past_key_values=past_key_values,",
    "use_cache=use_cache,",
    "position_embeddings=position_embeddings,",
    "**kwargs,",
    ")",
    "hidden_states = residual + hidden_states",
    "residual = hidden_states",
    "hidden_states = self.post_attention_layernorm(hidden_states)",
    "hidden_states = self.mlp(hidden_states)",
    "hidden_states = residual + hidden_states",
    "return hidden_states",
]
"""Llama's, which most families have: it attends once, and what it makes of a token needs no other token besides."""


class KeysAreKept(Exception):  # no error: nothing else of the pass's block is needed
    """A block's keys and values are where they belong."""


def spare_last_block(model: PreTrainedModel) -> bool:
    """Let the last block ask who attends what is asked for, if its code is known; see ``packed.Attends``.

    Returns:
        Whether it does: the logits of a pass are then those of the tokens ``kept``, and no others.
    """
    try:
        block = decoder_blocks(model)[-1]
    except CheckpointError:  # it goes through its blocks in an order of its own
        return False
    if not hasattr(block, _SPARES):
        setattr(block, _SPARES, has_llamas_code(block))
        if getattr(block, _SPARES):
            block.register_forward_pre_hook(_spare, with_kwargs=True)
    spares: bool = getattr(block, _SPARES)
    return spares


def has_llamas_code(block: Any) -> bool:
    """Whether a block's code is Llama's, and its attention calls once."""
    try:
        lines = (line.strip() for line in inspect.getsource(type(block).forward).splitlines())
        attention = inspect.getsource(type(block.self_attn).forward)
    except (AttributeError, OSError, TypeError):
        return False
    # DiffLlama's attends twice, so that the first call has not all keys
    if attention.count("attention_interface(") != 1:
        return False
    return [line for line in lines if line and not line.startswith("#")][-len(_BLOCK) :] == _BLOCK


def _spare(block: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Before the block: have it keep all keys and values, then give it the tokens that are asked for."""
    asked = who_attends()
    if asked is None or asked.kept is None:
        return None
    hidden = arguments[0] if arguments else named["hidden_states"]
    tokens, kept = hidden.shape[1], to_device(asked.kept, hidden.device)
    asked.storing = True
    with contextlib.suppress(KeysAreKept):
        block.forward(*arguments, **named)

    def of_kept(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(of_kept, value))
        is_of_tokens = isinstance(value, Tensor) and value.dim() > 1 and value.shape[:2] == (1, tokens)
        return value.index_select(1, kept) if is_of_tokens else value

    return tuple(map(of_kept, arguments)), {name: of_kept(value) for name, value in named.items()}
