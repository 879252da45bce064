"""How a quantization method is asked of transformers.

Knows bitsandbytes' settings.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint
from probegrid.schema import Dtype, QuantizationMethod

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


def quantization_config(
    method: QuantizationMethod, checkpoint: Checkpoint, dtype: Dtype = Dtype.bfloat16
) -> BitsAndBytesConfig | None:
    """Settings for ``from_pretrained``: NF4 with double quantization and 16-bit compute, LLM.int8(), or None.

    A checkpoint that is already quantized loads as it is.

    Raises:
        CheckpointError: the checkpoint is quantized in another way than asked.
    """
    stored = checkpoint.config.get("quantization_config")
    if stored is not None:
        _check_stored(method, stored, checkpoint.name)
        return None
    if method is QuantizationMethod.none:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    if method is QuantizationMethod.int8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(getattr(torch, dtype.value)),
    )


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What NF4 layers multiply in, in a model of this type: float16 where it is float16, else bfloat16."""
    return dtype if dtype == torch.float16 else torch.bfloat16


def compute_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Let a model that transformers loaded multiply its NF4 layers as ours do, whatever its own config says."""
    if "bitsandbytes" not in sys.modules:  # importing it takes seconds, and nothing is of its types
        return
    from bitsandbytes.nn.modules import Linear4bit

    for part in model.modules():
        if isinstance(part, Linear4bit):
            part.compute_dtype = compute_dtype(dtype)


def _check_stored(method: QuantizationMethod, stored: dict[str, object], name: str) -> None:
    if stored.get("load_in_4bit"):
        kind = str(stored.get("bnb_4bit_quant_type", "fp4"))
    elif stored.get("load_in_8bit"):
        kind = "int8"
    else:
        kind = str(stored.get("quant_method", "unknown"))
    if kind != method.value:
        raise CheckpointError(
            f"{name} is stored as {kind}, but quantization={method.value} was asked; use quantization={kind} "
            "where that is one of none, int8, nf4, or the unquantized checkpoint."
        )


OUTLIER_THRESHOLD = 6.0
"""Input features above it are multiplied in 16 bits (LLM.int8, Dettmers et al. 2022, section 3.2)."""

# Else it says, at every product, that inputs are cast as int8 needs it, and that a kernel for CPUs is not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

Entries = dict[str, Tensor]
"""Tensors by their name within a module; a quantized matrix has its constants beside it."""


def pack(name: str, weight: Tensor, method: QuantizationMethod) -> Entries:
    """Quantize one matrix where it lies.

    Args:
        name: name of the parameter within its module.
        weight: [rows, columns] or, for experts, [experts, rows, columns], in the dtype it is computed in.
        method: ``nf4`` (double quantization); ``int8`` (a scale a row), for matrices only.

    Returns:
        The packed weight under ``name``, and its constants: ``<name>.absmax`` and others for NF4 (the keys of
        ``QuantState.as_dict``); ``<module>.SCB`` and ``<module>.weight_format`` for int8.
    """
    import bitsandbytes.functional as bnb

    if method is QuantizationMethod.nf4:
        packed, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        constants = {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
        return {name: packed, **constants}
    if weight.dim() != 2:
        raise CheckpointError(
            "quantization=int8 has no form for a mixture's experts, which are stored as one tensor; "
            "use quantization=nf4, or none."
        )
    rows, scales, _ = bnb.int8_vectorwise_quant(weight.to(torch.float16))
    module = name.rpartition(".")[0]
    row_major = torch.tensor(0, dtype=torch.uint8)
    return {name: rows, f"{module}.SCB": scales, f"{module}.weight_format": row_major}


def fill(
    module: nn.Module, entries: Mapping[str, Tensor], *, dtype: torch.dtype, device: torch.device
) -> None:
    """Give every parameter of a module on the meta device its weight, and move the module's buffers beside them.

    Linear layers whose weight is packed become bitsandbytes' layers; packed experts are unpacked each time they
    are used.

    Args:
        module: its parameters are replaced.
        entries: as ``pack`` returns them; parameters that are not quantized under their own names.
        dtype: type of the parameters that are not quantized.
        device: where all of it will lie.

    Raises:
        CheckpointError: a parameter is missing or has another shape.
    """
    for name, parameter in list(module.named_parameters()):
        owner_name, _, attribute = name.rpartition(".")
        if name not in entries:
            raise CheckpointError(
                f"the checkpoint lacks {name}; finish its download, or correct its config.json."
            )
        owner, weight = module.get_submodule(owner_name), entries[name]
        stored = _nf4_shape(entries, name) if f"{name}.absmax" in entries else weight.shape
        if stored != parameter.shape:
            raise CheckpointError(
                f"{name} is {list(stored)} in the checkpoint and {list(parameter.shape)} by its config.json; "
                "one of them is of another model."
            )
        if f"{name}.absmax" in entries:
            constants = _constants(entries, name)
            _fill_nf4(module, owner_name, attribute, weight.to(device), constants, dtype=dtype, device=device)
        elif isinstance(owner, nn.Linear) and attribute == "weight" and f"{owner_name}.SCB" in entries:
            scales = entries[f"{owner_name}.SCB"].to(device)
            module.set_submodule(owner_name, _int8_linear(owner, weight.to(device), scales))
        else:
            setattr(owner, attribute, nn.Parameter(weight.to(device, dtype), requires_grad=False))
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)


def constants_of(module: nn.Module) -> Iterator[tuple[Any, str]]:
    """Where a module keeps tensors that are neither parameters nor buffers: (object, attribute) pairs.

    These are the constants of bitsandbytes' layers. Some share memory with a parameter.
    """
    if "bitsandbytes" not in sys.modules:  # importing it takes seconds, and nothing is of its types
        return
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
    from bitsandbytes.nn.parametrize import Bnb4bitParametrization

    for part in module.modules():
        owner: Any = part
        if isinstance(part, Linear8bitLt):
            if owner.weight.CB is not None:
                part.init_8bit_state()  # moves both tensors from the parameter to the layer, as its first use does
            yield part.state, "CB"
            yield part.state, "SCB"
        elif isinstance(part, Linear4bit | Bnb4bitParametrization):
            state = (owner.weight if isinstance(part, Linear4bit) else owner).quant_state
            yield from ((state, attribute) for attribute in ("absmax", "code"))
            if state.nested:
                yield state, "offset"
                yield from ((state.state2, attribute) for attribute in ("absmax", "code"))


def _fill_nf4(
    module: nn.Module,
    owner_name: str,
    attribute: str,
    packed: Tensor,
    constants: Entries,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit
    from bitsandbytes.nn.parametrize import replace_parameter_4bit_prequantized

    owner = module.get_submodule(owner_name)
    if not isinstance(owner, nn.Linear):
        setattr(owner, attribute, nn.Parameter(packed, requires_grad=False))
        replace_parameter_4bit_prequantized(owner, attribute, constants, device)
        parametrized: Any = owner
        parametrized.parametrizations[attribute][0].quant_state.dtype = dtype  # they are unpacked to it
        return
    linear: Any = Linear4bit(
        owner.in_features,
        owner.out_features,
        bias=owner.bias is not None,
        compute_dtype=compute_dtype(dtype),
        quant_type="nf4",
        device="meta",
    )
    linear.weight = Params4bit.from_prequantized(packed, constants, device=device, module=linear)
    # On some CPUs the first use would repack the weight in place and round its constants to 16 bits.
    linear.support_avx512bf16_for_cpu = False
    module.set_submodule(owner_name, linear.eval())


def _int8_linear(owner: nn.Linear, rows: Tensor, scales: Tensor) -> nn.Module:
    from bitsandbytes.nn.modules import Int8Params, Linear8bitLt

    linear = Linear8bitLt(
        owner.in_features,
        owner.out_features,
        bias=owner.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER_THRESHOLD,
        device="meta",
    )
    linear.weight = Int8Params(rows, requires_grad=False, CB=rows, SCB=scales)
    filled: nn.Module = linear.eval()
    return filled


def _constants(entries: Mapping[str, Tensor], name: str) -> Entries:
    """What stands beside a packed weight, by the names of ``QuantState.as_dict``."""
    return {
        key.removeprefix(f"{name}."): value for key, value in entries.items() if key.startswith(f"{name}.")
    }


def _nf4_shape(entries: Mapping[str, Tensor], name: str) -> torch.Size:
    from bitsandbytes.utils import unpack_tensor_to_dict

    (state,) = (value for key, value in _constants(entries, name).items() if key.startswith("quant_state."))
    return torch.Size(unpack_tensor_to_dict(state)["shape"])
