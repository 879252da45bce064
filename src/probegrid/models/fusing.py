"""Norms, rotations and gates of a model as fused kernels, where a library knows its family.

Liger's kernels compute what the modules compute, in one pass over memory instead of four to six. What it does not know
stays as it is. Knows modules, and Liger's table of families.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probegrid.models.blocks import computing_devices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FUSED = "_probegrid_fused"
_ROTATION = "apply_rotary_pos_emb"


def fuse(model: PreTrainedModel) -> bool:
    """Let a model compute with fused kernels, if all of it is on GPUs and Liger is installed and knows its family.

    Returns:
        Whether it does now.
    """
    if getattr(model, _FUSED, None) is None:
        setattr(model, _FUSED, may_fuse(model) and _fuse(model))
    fused: bool = getattr(model, _FUSED)
    return fused


def may_fuse(model: PreTrainedModel) -> bool:
    """Whether `fuse` would change the model now: it was not asked before, and all of the model is on GPUs."""
    asked = getattr(model, _FUSED, None) is not None
    return not asked and all(device.type == "cuda" for device in computing_devices(model))


def _fuse(model: PreTrainedModel) -> bool:
    try:
        from liger_kernel.transformers.monkey_patch import (
            MODEL_TYPE_TO_APPLY_LIGER_FN,
            _apply_liger_kernel_to_instance,
        )
    except ImportError:
        return False
    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return False
    logging.getLogger("liger_kernel").setLevel(
        logging.ERROR
    )  # it reports every kernel of other makers that is absent
    code = sys.modules[type(model).__module__]
    before = dict(vars(code))
    losses = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    with contextlib.suppress(
        AttributeError, ImportError, TypeError, ValueError
    ):  # a family that changed since
        _apply_liger_kernel_to_instance(model=model, **losses)
    after = dict(vars(code))
    for (
        name,
        value,
    ) in before.items():  # other models of the family, which may compute elsewhere, stay as they are
        setattr(code, name, value)
    if _ROTATION in before and after[_ROTATION] is not before[_ROTATION]:
        setattr(code, _ROTATION, _by_device(after[_ROTATION], before[_ROTATION]))
    return True


def _by_device(fused: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """A rotation that is fused on GPUs; the family's modules find it by its name, whichever model they are of."""

    def rotate(query: Tensor, *arguments: Any, **named: Any) -> Any:
        if not query.is_cuda:
            return plain(query, *arguments, **named)
        with torch.cuda.device(query.device):
            return fused(query, *arguments, **named)

    return rotate


_LLAMA_BLOCK = [
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
_LAST_OF_ATTENTION = ["attn_output = self.o_proj(attn_output)", "return attn_output, attn_weights"]


def _add_within_products(block: nn.Module) -> None:
    """Let a block whose code is Llama's add to the residual stream while it multiplies: the stream is read once less.

    The two sums are rounded once where the block's own code rounds twice. Blocks of other code, and quantized products,
    stay as they are.
    """
    named = dict(block.named_modules())
    last = [named[name] for name in ("self_attn.o_proj", "mlp.down_proj") if name in named]
    plain = len(last) == 2 and all(type(product) is nn.Linear and product.bias is None for product in last)
    if plain and _ends_with(block, _LLAMA_BLOCK) and _ends_with(named["self_attn"], _LAST_OF_ATTENTION):
        for product in last:
            product.forward = MethodType(_add_product, product)
        block.forward = MethodType(_forward, block)


def _ends_with(module: nn.Module, code: list[str]) -> bool:
    """Whether a module's own code ends with some lines, comments and blank lines left out."""
    lines = (line.strip() for line in inspect.getsource(type(module).forward).splitlines())
    return [line for line in lines if line and not line.startswith("#")][-len(code) :] == code


def _forward(self: Any, hidden_states: Tensor, **named: Any) -> Tensor:
    """A block's code where ``o_proj`` and ``down_proj`` add the stream."""
    self.self_attn.o_proj.stream = hidden_states
    hidden_states, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **named)
    self.mlp.down_proj.stream = hidden_states
    added: Tensor = self.mlp(self.post_attention_layernorm(hidden_states))
    return added


def _add_product(self: Any, values: Tensor) -> Tensor:
    """The product of a linear layer, added to ``stream``, which is let go."""
    stream, self.stream = self.stream, None
    return torch.addmm(stream.flatten(0, -2), values.flatten(0, -2), self.weight.t()).view_as(stream)
