"""Norms, rotations and gates of a model as fused kernels, where a library knows its family.

Liger's kernels compute what the modules compute, in one pass over memory instead of four to six. What it does not know
stays as it is. Knows modules, and Liger's table of families.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probegrid.models.blocks import computing_devices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FUSED = "_probegrid_fused"
_ROTATION = "apply_rotary_pos_emb"
_PAYS_FROM = 7e15
"""Floating-point operations of a reading that make it worth 1.5 s of importing Liger: an H100 does 7.4e14 in a second,
and fused kernels save a sixth of its time."""


def pays(model: PreTrainedModel, tokens: int) -> bool:
    """Whether reading so many tokens gains more by fused kernels than it takes to import them.

    It hangs on the reading, not on what the process has imported. A model that one reading has fused stays so for the
    next, whose numbers then differ from those of a model of its own in the last digits of 16 bits.
    """
    matrices: list[Any] = [module for module in model.modules() if hasattr(module, "in_features")]
    parameters = sum(matrix.in_features * matrix.out_features for matrix in matrices)
    return bool(2 * tokens * parameters >= _PAYS_FROM)


def fuse(model: PreTrainedModel) -> bool:
    """Let a model compute with fused kernels, if all of it is on GPUs and Liger is installed and knows its family.

    Returns:
        Whether it does now.
    """
    if getattr(model, _FUSED, None) is None:
        setattr(model, _FUSED, may_fuse(model) and _fuse(model))
    fused: bool = getattr(model, _FUSED)
    return fused


def is_fused(model: PreTrainedModel) -> bool:
    """Whether a model computes with fused kernels."""
    return bool(getattr(model, _FUSED, None))


def rotates_fused(code: Any) -> bool:
    """Whether the modules of a family's code rotate by a fused kernel where they are on GPUs."""
    return hasattr(getattr(code, _ROTATION, None), _FUSED)


def may_fuse(model: PreTrainedModel) -> bool:
    """Whether `fuse` would change the model now: it was not asked before, and all of it is on GPUs in half precision.

    In float32 some of Liger's kernels are 1e-3 nats from the modules they stand for.
    """
    asked = getattr(model, _FUSED, None) is not None
    is_half = model.dtype in (torch.float16, torch.bfloat16)
    return not asked and is_half and all(device.type == "cuda" for device in computing_devices(model))


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

    setattr(rotate, _FUSED, True)
    return rotate
