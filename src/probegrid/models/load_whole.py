"""Loading by transformers itself: checkpoints that other libraries quantized, and those that bring their own code.

The device map is the plan's, by the names that the model's own modules have. Blocks do not stream, and the model is not
cut.

Knows ``from_pretrained``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from probegrid.errors import CheckpointError
from probegrid.models.libraries import lacking_libraries
from probegrid.models.parts import Place, modules_at, parts_of
from probegrid.models.quantization import compute_in, quantization_config
from probegrid.models.request import ModelRequest, refuse_missing
from probegrid.models.skeleton import shape_of
from probegrid.planning.stored import stored_form

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_whole(request: ModelRequest) -> PreTrainedModel:
    """Load the whole model, with its head.

    Raises:
        CheckpointError: weights are missing, or a library or device is that its form needs.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CAUSAL

    checkpoint, config = request.checkpoint, request.config
    form = stored_form(checkpoint.config)
    if (lacking := lacking_libraries(form)) is not None:
        raise CheckpointError(f"{checkpoint.name} {lacking}.")
    own = AutoConfig.from_pretrained(
        checkpoint.name, revision=checkpoint.commit, trust_remote_code=config.trust_remote_code
    )
    brings_code = config.trust_remote_code and "auto_map" in checkpoint.config
    kind: Any = AutoModelForCausalLM if brings_code or type(own) in CAUSAL else AutoModelForImageTextToText
    settings = quantization_config(request.quantization, checkpoint, config.dtype)
    try:
        model, info = kind.from_pretrained(
            checkpoint.name,
            revision=checkpoint.commit,
            dtype=getattr(torch, config.dtype.value),
            device_map=_device_map(request, own, brings_code=brings_code),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=config.use_safetensors or None,  # False would refuse safetensors
            ignore_mismatched_sizes=True,  # reported, and refused below
            output_loading_info=True,
            **({} if settings is None else {"quantization_config": settings}),
        )
    except (ImportError, RuntimeError, NotImplementedError) as error:
        if form is None:
            raise
        reason = " ".join(str(error).split())
        if isinstance(error, ModuleNotFoundError) and error.name:
            reason += f" (pip install {error.name})"
        raise CheckpointError(
            f"{checkpoint.name} is stored as {form.name}, which cannot be loaded here: {reason}"
        ) from error
    refuse_missing(checkpoint, info)
    _unpack_now(model)
    compute_in(model, getattr(torch, config.dtype.value))
    found: PreTrainedModel = model.eval()
    return found


def _unpack_now(model: Any) -> None:
    """Unpack what compressed-tensors would unpack in the first pass of the model with its head.

    What a cell says of the weights it holds is true then, and activations are read by the model without its head.
    """
    if not hasattr(model, "ct_decompress_hook"):
        return
    model.hf_quantizer.compressor.decompress_model(model)
    # of some forms bfloat16 weights come out, whatever the model's type
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            module.weight.data = module.weight.data.to(model.dtype)


def _device_map(request: ModelRequest, own: Any, *, brings_code: bool) -> dict[str, int | str] | str:
    """The device of every module, by its name in the model."""
    placement = request.placement
    if placement is None:
        return "auto" if torch.cuda.is_available() else {"": "cpu"}
    devices = {placement.embedding, *placement.blocks, placement.head or placement.final_norm}
    if len(devices) == 1:
        return {"": devices.pop()}
    if brings_code:
        return "auto"
    for part in (own, own.get_text_config(decoder=True)):
        part.__dict__.pop("quantization_config", None)
    model = shape_of(own)
    found: dict[str, int | str] = {part.name: part.device(placement) for part in parts_of(model)}
    for place in (Place.front, Place.tail):  # rotations hold no weights
        device = placement.entrance if place is Place.front else placement.final_norm
        found |= {name: device for name, _ in modules_at(model, place) if name not in found}
    return found
