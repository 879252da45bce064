"""Which matrices of a model are packed, how, and what the packed model's rounding depends on.

Knows bitsandbytes' layers and settings, and how modules hold their matrices.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.source import code_of
from probegrid.planning.headers import ROUTER
from probegrid.planning.stored import StoredForm, stored_form
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
    form = stored_form(checkpoint.config)
    if form is not None:
        _check_stored(method, form, checkpoint.name)
        return None
    if not method.packs:
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


def _check_stored(method: QuantizationMethod, form: StoredForm, name: str) -> None:
    if method not in (QuantizationMethod.auto, form.method):
        raise CheckpointError(
            f"{name} is stored as {form.name}, but quantization={method.value} was asked; use quantization=auto, which "
            "takes it as it is, or a checkpoint that is not quantized."
        )


OUTLIER_THRESHOLD = 6.0
"""Input features above it are multiplied in 16 bits (LLM.int8, Dettmers et al. 2022, section 3.2)."""

# Else it says, at every product, that inputs are cast as int8 needs it, and that a kernel for CPUs is not installed.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

Entries = dict[str, Tensor]
"""Tensors by their names in a model; a quantized matrix has its constants beside it."""


def is_matrix(model: nn.Module, name: str) -> bool:
    """Whether a tensor of a block is a matrix that quantization packs: of a linear layer, or of experts.

    Args:
        model: that holds it.
        name: in the model's ``state_dict``.
    """
    owner_name, _, attribute = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if ROUTER.search(name) or name in _tied(model):
        return False
    weight: Tensor = getattr(owner, attribute)
    if attribute == "weight" and is_linear(owner):
        return weight.dim() == 2
    if isinstance(owner, nn.Conv1d | nn.Embedding) or "bias" in attribute or not weight.is_floating_point():
        return False
    return weight.dim() == 3 or (weight.dim() == 2 and "experts" in owner_name.split("."))


def _tied(model: Any) -> set[str]:
    """Tensors that several modules hold: what is packed could not be shared."""
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    return {*tied, *tied.values()}


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies by its weight: torch's own layer or GPT-2's, whose weight is transposed."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def becomes_layer(model: nn.Module, name: str) -> bool:
    """Whether the module of a packed matrix becomes one of bitsandbytes' layers.

    Experts do not, nor a layer that multiplies otherwise, nor one whose weight its parent's code reads: those unpack
    when they are read.
    """
    owner_name, _, attribute = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if attribute != "weight" or not (type(owner) is nn.Linear or type(owner).__name__ in _PLAIN_PRODUCTS):
        return False
    parent_name, _, child = owner_name.rpartition(".")
    parent: Any = type(model.get_submodule(parent_name))
    return f".{child}.weight" not in code_of(parent)


_PLAIN_PRODUCTS = ("Conv1D", "FalconLinear")
"""transformers' layers that are torch's linear layer written otherwise."""


_IN_PLACE = re.compile(r"\.weight\.(div|mul|add|sub)_\(")
"""What code says that changes a weight where it lies (RWKV's)."""


def rounds_together(model: nn.Module) -> bool:
    """Whether rounding of a token depends on the others of its pass: LLM.int8 looks for outliers in all of them."""
    return any(
        "Linear8bitLt" in {each.__name__ for each in type(module).__mro__} for module in model.modules()
    )


def product_dtype(model: Any) -> torch.dtype:
    """The narrowest type that a model multiplies in: NF4's layers have one of their own."""
    own = {each for module in model.modules() if (each := getattr(module, "compute_dtype", None)) is not None}
    narrowest: torch.dtype = min({model.dtype, *own}, key=lambda dtype: (-torch.finfo(dtype).eps, str(dtype)))
    return narrowest


def is_transposed(module: nn.Module) -> bool:
    """Whether a linear layer holds its weight as [inputs, outputs] (GPT-2's ``Conv1D``)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def pack(model: nn.Module, name: str, weight: Tensor, method: QuantizationMethod) -> Entries:
    """Quantize one matrix where it lies.

    Args:
        model: its skeleton; what holds the matrix decides its form.
        name: name of the matrix in the model.
        weight: [rows, columns], [inputs, outputs] where `is_transposed`, or [experts, rows, columns], in the dtype it
            is computed in.
        method: ``nf4`` (double quantization); ``int8`` (a scale a row).

    Returns:
        The packed weight under ``name``, and its constants: ``<name>.absmax`` and others for NF4 (the keys of
        ``QuantState.as_dict``); for int8 ``<module>.SCB`` and ``<module>.weight_format`` of a linear layer,
        ``<name>.SCB`` of experts.

    Raises:
        CheckpointError: the model's code changes its weights while it computes.
    """
    import bitsandbytes.functional as bnb

    if _IN_PLACE.search(code_of(sys.modules[type(model).__module__])):
        raise CheckpointError(
            f"{type(model).__name__}'s code scales its weights in place, which packed ones do not allow; give "
            "quantization=none."
        )
    module_name = name.rpartition(".")[0]
    is_layer = becomes_layer(model, name)
    if is_layer and is_transposed(model.get_submodule(module_name)):
        weight = weight.t().contiguous()
    if method is QuantizationMethod.nf4:
        packed, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        constants = {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
        return {name: packed, **constants}
    rows, scales, _ = bnb.int8_vectorwise_quant(weight.to(torch.float16).flatten(0, -2))
    if not is_layer:
        return {name: rows.view(weight.shape), f"{name}.SCB": scales}
    row_major = torch.tensor(0, dtype=torch.uint8)
    return {name: rows, f"{module_name}.SCB": scales, f"{module_name}.weight_format": row_major}


def fill(
    model: nn.Module,
    names: Iterable[str],
    entries: Mapping[str, Tensor],
    *,
    dtype_of: Callable[[str], torch.dtype],
    device: torch.device,
) -> list[str]:
    """Give some tensors of a model on the meta device their weights.

    Linear layers whose weight is packed become bitsandbytes' layers; packed experts are unpacked each time they
    are used.

    Args:
        model: its parameters and buffers are replaced.
        names: of the tensors in the model.
        entries: as ``pack`` returns them; tensors that are not quantized under their own names.
        dtype_of: type of a tensor that is not quantized, by its name.
        device: where all of them will lie.

    Returns:
        Those that ``entries`` lacks.

    Raises:
        CheckpointError: one has another shape.
    """
    missing: list[str] = []
    for name in names:
        owner_name, _, attribute = name.rpartition(".")
        if name not in entries:
            missing.append(name)
            continue
        owner, weight = model.get_submodule(owner_name), entries[name]
        constants, scales = _constants(entries, name), f"{owner_name}.SCB"
        _check_shape(name, owner, attribute, _nf4_shape(constants) if "absmax" in constants else weight.shape)
        if "absmax" in constants:
            _fill_nf4(model, owner_name, attribute, weight.to(device), constants, dtype_of(name), device)
        elif "SCB" in constants:
            _fill_int8(owner, attribute, weight.to(device), constants["SCB"].to(device), dtype_of(name))
        elif scales in entries and attribute == "weight":
            made = _int8_linear(owner, weight.to(device), entries[scales].to(device))
            model.set_submodule(owner_name, made)
        elif attribute in owner._parameters:
            setattr(owner, attribute, nn.Parameter(weight.to(device, dtype_of(name)), requires_grad=False))
        else:
            setattr(owner, attribute, weight.to(device, dtype_of(name)))
    return missing


def _check_shape(name: str, owner: nn.Module, attribute: str, found: torch.Size) -> None:
    expected = getattr(owner, attribute).shape
    is_turned = attribute == "weight" and is_transposed(owner) and found == expected[::-1]
    if found != expected and not is_turned:
        raise CheckpointError(
            f"{name} is {list(found)} in the checkpoint and {list(expected)} by its config.json; "
            "one of them is of another model."
        )


class Int8Rows(nn.Module):
    """Unpacks matrices of int8 rows each time they are used, as a parametrization of the tensor that holds them."""

    def __init__(self, scales: Tensor, dtype: torch.dtype) -> None:
        """Hold the scales.

        Args:
            scales: float32 [rows of all matrices]: the largest magnitude of each row.
            dtype: of what is unpacked.
        """
        super().__init__()
        self.register_buffer("scales", scales)
        self._dtype = dtype

    def forward(self, rows: Tensor) -> Tensor:
        """[..., rows, columns] of int8 to the same in ``dtype``, one matrix at a time."""
        scales: Any = self.scales
        of_a_row = (scales / 127).view(*rows.shape[:-1], 1)
        if rows.dim() == 2:
            of_all: Tensor = (rows * of_a_row).to(self._dtype)
            return of_all
        unpacked = torch.empty(rows.shape, dtype=self._dtype, device=rows.device)
        for index in range(len(rows)):
            unpacked[index] = rows[index] * of_a_row[index]
        return unpacked


def _fill_int8(owner: nn.Module, attribute: str, rows: Tensor, scales: Tensor, dtype: torch.dtype) -> None:
    from bitsandbytes.nn.parametrize import _disable_parametrization_cache, _enable_parametrization_cache
    from torch.nn.utils.parametrize import register_parametrization

    setattr(owner, attribute, nn.Parameter(rows, requires_grad=False))
    register_parametrization(owner, attribute, Int8Rows(scales, dtype), unsafe=True)
    owner.register_forward_pre_hook(_enable_parametrization_cache)
    owner.register_forward_hook(_disable_parametrization_cache, always_call=True)


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
    model: nn.Module,
    owner_name: str,
    attribute: str,
    packed: Tensor,
    constants: Entries,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit
    from bitsandbytes.nn.parametrize import replace_parameter_4bit_prequantized

    owner: Any = model.get_submodule(owner_name)
    if not becomes_layer(model, f"{owner_name}.{attribute}"):
        setattr(owner, attribute, nn.Parameter(packed, requires_grad=False))
        replace_parameter_4bit_prequantized(owner, attribute, constants, device)
        owner.parametrizations[attribute][0].quant_state.dtype = dtype  # they are unpacked to it
        return
    outputs, inputs = _nf4_shape(constants)
    (kind,) = (key.rpartition("__")[2] for key in constants if key.startswith("quant_state."))
    linear: Any = Linear4bit(
        inputs,
        outputs,
        bias=owner.bias is not None,
        compute_dtype=compute_dtype(dtype),
        quant_type=kind,
        device="meta",
    )
    linear.weight = Params4bit.from_prequantized(packed, constants, device=device, module=linear)
    linear.bias = owner.bias
    # On some CPUs the first use would repack the weight in place and round its constants to 16 bits.
    linear.support_avx512bf16_for_cpu = False
    model.set_submodule(owner_name, linear.eval())


def _int8_linear(owner: nn.Module, rows: Tensor, scales: Tensor) -> nn.Module:
    from bitsandbytes.nn.modules import Int8Params, Linear8bitLt

    class Int8Linear(Linear8bitLt):
        """Takes inputs of any number of dimensions: bitsandbytes' code for CPUs takes at most three."""

        def forward(self, inputs: Tensor) -> Tensor:
            products: Tensor = super().forward(inputs.flatten(0, -3) if inputs.dim() > 3 else inputs)
            return products.view(*inputs.shape[:-1], products.shape[-1])

    module: Any = owner
    linear = Int8Linear(
        rows.shape[1],
        rows.shape[0],
        bias=module.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER_THRESHOLD,
        device="meta",
    )
    linear.weight = Int8Params(rows, requires_grad=False, CB=rows, SCB=scales)
    linear.bias = module.bias
    filled: nn.Module = linear.eval()
    return filled


def _constants(entries: Mapping[str, Tensor], name: str) -> Entries:
    """What stands beside a packed tensor of that very name, by the names of ``QuantState.as_dict``, or ``SCB``."""
    if f"{name}.SCB" not in entries and f"{name}.absmax" not in entries:
        return {}
    start = f"{name}."
    return {key.removeprefix(start): value for key, value in entries.items() if key.startswith(start)}


def _nf4_shape(constants: Mapping[str, Tensor]) -> torch.Size:
    from bitsandbytes.utils import unpack_tensor_to_dict

    (state,) = (value for key, value in constants.items() if key.startswith("quant_state."))
    return torch.Size(unpack_tensor_to_dict(state)["shape"])
