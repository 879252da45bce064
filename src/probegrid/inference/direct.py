"""Blocks of Llama's code by the kernels that they consist of, with no modules between.

What a module, its hooks and autograd cost the host is several times what launching its kernel does. It is what GPUs
wait for where passes are short, and where one host serves several of them. The kernels are Liger's, in the order of
Liger's modules, so that nothing changes but sums and norms that are one kernel. Knows blocks and their parts, and who
is attending.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
from torch import Tensor, nn

from probegrid.errors import CheckpointError
from probegrid.inference.attention import Softmax
from probegrid.inference.last_block import has_llamas_code
from probegrid.inference.packed import who_attends
from probegrid.models.blocks import decoder_blocks
from probegrid.models.fusing import is_fused, rotates_fused

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DIRECT = "_probegrid_direct"
_ATTENTION = [
    "input_shape = hidden_states.shape[:-1]",
    "hidden_shape = (*input_shape, -1, self.head_dim)",
    "query_states = self.q_proj(hidden_states).view(hidden_shape).transpose(1, 2)",
    "key_states = self.k_proj(hidden_states).view(hidden_shape).transpose(1, 2)",
    "value_states = self.v_proj(hidden_states).view(hidden_shape).transpose(1, 2)",
    "cos, sin = position_embeddings",
    "query_states, key_states = apply_rotary_pos_emb(query_states, key_states, cos, sin)",
    "if past_key_values is not None:",
    "key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)",
    "attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(",
    "self.config._attn_implementation, eager_attention_forward",
    ")",
    "attn_output, attn_weights = attention_interface(",
    "self,",
    "query_states,",
    "key_states,",
    "value_states,",
    "attention_mask,",
    "dropout=0.0 if not self.training else self.attention_dropout,",
    "scaling=self.scaling,",
    "**kwargs,",
    ")",
    "attn_output = attn_output.reshape(*input_shape, -1).contiguous()",
    "attn_output = self.o_proj(attn_output)",
    "return attn_output, attn_weights",
]
"""Llama's, which Mistral, Qwen and others have with a line or two of their own."""
_NORMED = {
    "query_states = self.q_norm(self.q_proj(hidden_states).view(hidden_shape)).transpose(1, 2)": _ATTENTION[
        2
    ],
    "key_states = self.k_norm(self.k_proj(hidden_states).view(hidden_shape)).transpose(1, 2)": _ATTENTION[3],
}
"""The lines of those who norm heads, and the lines in whose place they stand."""
_WINDOWS: dict[str, Callable[[Any], int | None]] = {
    "sliding_window=self.sliding_window,": lambda attention: attention.sliding_window,
    'sliding_window=getattr(self.config, "sliding_window", None),': lambda attention: getattr(
        attention.config, "sliding_window", None
    ),
}
"""Lines that hand on a window, and what they hand on."""


@dataclass(frozen=True)
class Kernels:
    """What blocks are made of besides products and attention; tensors of the model's dtype, token by token."""

    norm: Callable[[Any, Tensor], Tensor]
    """A module's norm of [..., d]."""
    add_and_norm: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]
    """A module's norm of a sum, and the sum."""
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """Queries [1, N, H, d] and keys [1, N, K, d], rotated by cos and sin [1, N, d]."""
    gate: Callable[[Tensor, Tensor], Tensor]
    """SiLU of the first, times the second."""


def compute_directly(model: PreTrainedModel) -> bool:
    """Let the blocks of a fused model call their kernels themselves wherever `packed.Attends` answers for attention.

    Blocks whose code is not Llama's stay as they are, and so does every pass of which nobody else attends.

    Returns:
        Whether all of them do.
    """
    if not is_fused(model):  # yet
        return False
    if not hasattr(model, _DIRECT):
        kernels = _ligers()
        setattr(model, _DIRECT, kernels is not None and let_blocks_call(model, kernels))
    direct: bool = getattr(model, _DIRECT)
    return direct


def let_blocks_call(model: PreTrainedModel, kernels: Kernels) -> bool:
    """Let all blocks call these kernels, if the code of each is known; returns whether they do."""
    try:
        blocks = list(decoder_blocks(model))
    except CheckpointError:  # it goes through its blocks in an order of its own
        return False
    direct = [found for block in blocks if (found := _DirectBlock.of(block, kernels)) is not None]
    if len(direct) < len(blocks):
        return False
    for block, own in zip(blocks, direct, strict=True):
        setattr(block, "forward", own)  # noqa: B010  # as a type checker has it, a method is not assigned to
    return True


class _DirectBlock:
    """Stands for the forward pass of one block."""

    def __init__(self, block: Any, kernels: Kernels, window: int | None, norms_heads: bool) -> None:
        attention, mlp = block.self_attn, block.mlp
        self._own = partial(type(block).forward, block)
        self._kernels = kernels
        self._first, self._second = block.input_layernorm, block.post_attention_layernorm
        self._head_norms = (attention.q_norm, attention.k_norm) if norms_heads else None
        self._width: int = attention.head_dim
        self._how = Softmax(attention.scaling, window)
        products = [
            *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
            *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
        ]
        norms = [self._first, self._second, *(self._head_norms or ())]
        self._hooks = [
            hooks
            for each in (attention, mlp, *norms, *products)
            for hooks in (each._forward_hooks, each._forward_pre_hooks)
        ]
        self._q, self._k, self._v, self._o, self._gate, self._up, self._down = map(_product, products)

    @classmethod
    def of(cls, block: Any, kernels: Kernels) -> _DirectBlock | None:
        """That of a block; None: its code is not known, or nothing says that the kernels do what it does."""
        if not has_llamas_code(block) or any("forward" in vars(each) for each in (block, block.self_attn)):
            return None  # what stands there instead, as accelerate's, does more than the code says
        lines = _lines(type(block.self_attn).forward)
        windows = [window for line, window in _WINDOWS.items() if line in lines]
        normed = [line for line in lines if line in _NORMED]
        plain = [_NORMED.get(line, line) for line in lines if line not in _WINDOWS]
        is_known = plain[-len(_ATTENTION) :] == _ATTENTION and len(windows) <= 1 and len(normed) in (0, 2)
        try:
            if not is_known or not kernels_stand_for(block):
                return None
            window = windows[0](block.self_attn) if windows else None
            return cls(block, kernels, window, norms_heads=bool(normed))
        except AttributeError:  # its parts have other names, as experts in place of one feed-forward network
            return None

    def __call__(
        self,
        hidden_states: Tensor,
        *others: Any,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        past_key_values: Any = None,
        **named: Any,
    ) -> Tensor:
        """What the block makes of a pass [1, N, d]."""
        asked = who_attends()
        if (
            asked is None
            or others
            or position_embeddings is None
            or past_key_values is not None
            or torch.is_grad_enabled()
            or any(self._hooks)  # somebody listens to a module that would not be called
        ):
            if position_embeddings is not None:
                named["position_embeddings"] = position_embeddings
            found: Tensor = self._own(hidden_states, *others, past_key_values=past_key_values, **named)
            return found
        kernels = self._kernels
        with _on_device_of(hidden_states):
            normed = kernels.norm(self._first, hidden_states)
            by_head = (*normed.shape[:2], -1, self._width)
            query, key, value = (product(normed).view(by_head) for product in (self._q, self._k, self._v))
            del normed
            if self._head_norms is not None:
                query, key = (norm(part) for norm, part in zip(self._head_norms, (query, key), strict=True))
            query, key = kernels.rotate(query, key, *position_embeddings)
            attended = asked.attend(query[0], key[0], value[0], self._how)
            del query, key, value
            attended = self._o(attended.reshape(*hidden_states.shape[:2], -1))
            normed, total = kernels.add_and_norm(self._second, hidden_states, attended)
            del attended
            gate, up = self._gate(normed), self._up(normed)
            del normed
            gated = kernels.gate(gate, up)
            del gate, up
            return total.add_(self._down(gated))


def kernels_stand_for(block: Any) -> bool:
    """Whether Liger has fused a block: its norms, its rotation and its gate."""
    norms = [block.input_layernorm, block.post_attention_layernorm]
    is_fused_norm = all(_forward_of(norm) == "LigerRMSNorm" for norm in norms)
    return (
        is_fused_norm
        and _forward_of(block.mlp) == "LigerSwiGLUMLP"
        and rotates_fused(sys.modules[type(block.self_attn).__module__])
    )


def _forward_of(module: Any) -> str:
    """The class that the code of a module's forward pass was written for."""
    code = getattr(module.forward, "__func__", module.forward)
    return str(getattr(code, "__qualname__", "")).partition(".")[0]


def _lines(code: Any) -> list[str]:
    """The lines of a function without comments and blank ones; none where its source is not at hand."""
    try:
        lines = (line.split("  #")[0].strip() for line in inspect.getsource(code).splitlines())
    except (OSError, TypeError):
        return []
    return [line for line in lines if line and not line.startswith("#")]


def _product(layer: Any) -> Callable[[Tensor], Tensor]:
    """What a linear layer does, without the module around it where it is torch's own or bitsandbytes' NF4."""
    if type(layer) is nn.Linear and "forward" not in vars(layer):
        return lambda inputs: F.linear(inputs, layer.weight, layer.bias)
    if type(layer).__name__ == "Linear4bit":
        from probegrid.inference.unpacking import is_unpacked_here, multiply

        if is_unpacked_here(layer):
            return partial(multiply, layer)
    called: Callable[[Tensor], Tensor] = layer
    return called


def _on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _ligers() -> Kernels | None:
    """Liger's kernels without its modules; None: this version has others than are known here."""
    try:
        from liger_kernel.ops.fused_add_rms_norm import fused_add_rms_norm_forward
        from liger_kernel.ops.rms_norm import rms_norm_forward
        from liger_kernel.ops.rope import rope_forward
        from liger_kernel.ops.swiglu import swiglu_forward
    except ImportError:
        return None
    expected = {
        rms_norm_forward: ("X", "W", "eps", "offset", "casting_mode", "row_mode"),
        fused_add_rms_norm_forward: ("X", "R", "W", "eps", "offset", "casting_mode"),
        rope_forward: ("q", "k", "cos", "sin"),
        swiglu_forward: ("a", "b"),
    }
    for function, names in expected.items():
        found = tuple(inspect.signature(function).parameters.values())
        others = found[len(names) :]
        if tuple(each.name for each in found[: len(names)]) != names or any(
            each.default is inspect.Parameter.empty for each in others
        ):
            return None

    def norm(module: Any, values: Tensor) -> Tensor:
        normed: Tensor = rms_norm_forward(
            values,
            module.weight,
            module.variance_epsilon,
            module.offset,
            module.casting_mode,
            module.row_mode,
        )[0]
        return normed

    def add_and_norm(module: Any, values: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        normed, total, *_ = fused_add_rms_norm_forward(
            values, others, module.weight, module.variance_epsilon, module.offset, module.casting_mode
        )
        return normed, total

    def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        rotated = rope_forward(query.transpose(1, 2), key.transpose(1, 2), cos, sin)
        return rotated[0].transpose(1, 2), rotated[1].transpose(1, 2)

    def gate(first: Tensor, second: Tensor) -> Tensor:
        gated: Tensor = swiglu_forward(first, second)[2]
        return gated

    return Kernels(norm, add_and_norm, rotate, gate)
