"""Products with NF4 matrices: one kernel unpacks, in Triton, and torch multiplies.

bitsandbytes has a kernel of its own for few tokens, which is left to it. For many it unpacks too, by four kernels
behind a dispatcher, which cost the host 0.2 ms a product. What comes of both is the same, bit for bit: 4 bits are
looked up in NF4's table and multiplied in float32 with their block's scale, whose own 8 bits are looked up, multiplied
and shifted (QLoRA, Dettmers et al. 2023, arXiv 2305.14314, section 3).

Imported only where Triton is. Knows bitsandbytes' layers.
"""

# ruff: noqa: N803 (Triton's constants are written in capitals)
# mypy: ignore-errors

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64
"""Weights of a scale."""
_SCALES = 256
"""Scales of a scale of theirs."""
_TO_UNPACK = 8192
"""Weights that a program unpacks."""
_SMALL = 4 * 1024 * 1024
"""Weights of a matrix whose unpacking weighs more than its product."""
_FEW_FOR_SMALL, _FEW, _FEW_HBM = 1536, 512, 128
"""Tokens up to which bitsandbytes may multiply by a kernel of its own, of a small matrix and of others; cards with HBM
unpack sooner. From its own measurements, by which it chooses (0.50)."""


@triton.jit
def _unpack_kernel(
    out, packed, scales, scale_code, scale_scales, offset, code, blocks,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr, SCALES: tl.constexpr,
):  # fmt: skip
    """A program unpacks some adjacent blocks of weights."""
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    there = block < blocks
    step = tl.load(scales + block, mask=there, other=0).to(tl.int32)
    scale = tl.load(scale_code + step) * tl.load(scale_scales + block // SCALES, mask=there, other=0.0)
    scale = (scale + tl.load(offset))[:, None]
    pair = tl.arange(0, BLOCK // 2)[None, :]
    both = tl.load(packed + block[:, None] * (BLOCK // 2) + pair, mask=there[:, None], other=0).to(tl.int32)
    first, second = tl.load(code + (both >> 4)) * scale, tl.load(code + (both & 15)) * scale
    weights = tl.interleave(first, second).to(out.dtype.element_ty)
    place = tl.arange(0, BLOCK)[None, :]
    tl.store(out + block[:, None] * BLOCK + place, weights, mask=there[:, None])


def is_unpacked_here(layer: Any) -> bool:
    """Whether ``multiply`` is for a layer: bitsandbytes' own, of NF4 with scales in 8 bits, nothing added to it."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    return (
        type(layer).__name__ == "Linear4bit"
        and "forward" not in vars(layer)
        and state is not None
        and state.quant_type == "nf4"
        and state.blocksize == _BLOCK
        and bool(state.nested)
        and state.state2.blocksize == _SCALES
        and len(state.shape) == 2
        and state.shape[0] * state.shape[1] % _BLOCK == 0
    )


def multiply(layer: Any, inputs: Tensor) -> Tensor:
    """What a layer makes of inputs [..., K] on CUDA: [..., N], for which ``is_unpacked_here``."""
    rows, columns = layer.weight.quant_state.shape
    if inputs.dtype != layer.compute_dtype or inputs.numel() // columns <= _few(
        inputs.device, rows * columns < _SMALL
    ):
        product: Tensor = layer(inputs)
        return product
    bias = layer.bias
    return F.linear(
        inputs, unpacked(layer.weight, inputs.dtype), None if bias is None else bias.to(inputs.dtype)
    )


def unpacked(weight: Any, dtype: torch.dtype) -> Tensor:
    """The matrix [N, K] that a packed weight on CUDA stands for."""
    state = weight.quant_state
    out = torch.empty(state.shape, dtype=dtype, device=weight.device)
    blocks = out.numel() // _BLOCK
    with torch.cuda.device(weight.device):
        _unpack_kernel[(triton.cdiv(blocks, _TO_UNPACK // _BLOCK),)](
            out, weight.data, state.absmax, state.state2.code, state.state2.absmax, state.offset, state.code, blocks,
            BLOCKS=_TO_UNPACK // _BLOCK, BLOCK=_BLOCK, SCALES=_SCALES, num_warps=8,
            enable_fp_fusion=False,  # else a scale would be rounded once where bitsandbytes rounds twice
        )  # fmt: skip
    return out


@cache
def _few(device: torch.device, is_small: bool) -> int:
    has_hbm = torch.cuda.get_device_capability(device) in ((8, 0), (9, 0), (10, 0))
    return _FEW_FOR_SMALL if is_small else _FEW_HBM if has_hbm else _FEW
