"""From a checkpoint to its first blocks in memory: all that the activations of a layer are computed from.

Layer L is the residual stream after L blocks: the embeddings for L=0, never passed through the final norm. The
model is cut behind the deepest layer that is asked for: no later block, no final norm, no head. What cannot be
cut is loaded whole; reading it stops behind the deepest layer all the same (``readings.residual``).

Knows how a cut model is loaded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from probegrid.errors import ConfigError
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.models import load_by_parts as placed
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.load import (
    LoadedModel,
    ModelRequest,
    loading_errors,
    quantization_setting,
    refuse_missing,
)
from probegrid.models.shallow import obstacle, shallow_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from probegrid.planning.placement import Placement

_FINAL_NORM = frozenset({"norm.weight"})


@dataclass
class TruncatedModel(LoadedModel):
    """The first blocks of a decoder without its head, ``model.layers`` all of them and ``model.norm`` the identity.

    A model that could not be cut is transformers' bare decoder as it is.
    """

    blocks: int | None
    """Blocks in memory; None where the model could not be cut, and all of them are."""
    read_bytes: int | None
    """Bytes of the tensors that were read from disk, before any quantization; None where they were not counted."""
    note: str
    """What was loaded, and if it is the whole model, why."""


def load_truncated(request: ModelRequest, deepest_layer: int) -> TruncatedModel:
    """Load what the residual stream after ``deepest_layer`` blocks is computed from, and no more.

    Only the files that hold it are read, or fetched from the hub; others may be missing.

    Args:
        request: the checkpoint, its dtype, its quantization, and the device of each module by the bare
            decoder's names (``Placement.device_map(prefix="")``).
        deepest_layer: 0 to the number of blocks.

    Raises:
        ConfigError: the model has fewer blocks.
        CheckpointError: weights that are missing, damaged, or not of this architecture.
    """
    checkpoint = request.checkpoint
    _check_depth(checkpoint, deepest_layer)
    if request.placement is not None and placed.obstacle(checkpoint, request.config) is None:
        return _load_placed(request, request.placement, deepest_layer)
    reason = obstacle(checkpoint, trust_remote_code=request.config.trust_remote_code)
    if reason is not None:
        return _load_whole(request, deepest_layer, reason)
    started = time.perf_counter()
    use_safetensors = request.config.use_safetensors
    with (
        loading_errors(checkpoint),
        shallow_checkpoint(checkpoint, deepest_layer, use_safetensors=use_safetensors) as shallow,
    ):
        model = _from_pretrained(
            request,
            str(shallow.folder),
            device_map=request.device_map,
            unneeded=_FINAL_NORM,
            **(quantization_setting(request) if deepest_layer else {}),
        )
    model.norm = torch.nn.Identity()
    note = (
        f"{deepest_layer} of {checkpoint.config['num_hidden_layers']} blocks of {checkpoint.name} loaded: "
        f"{shallow.read_bytes / BYTES_PER_GB:.2f} GB read from {shallow.files} of {shallow.all_files} files"
    )
    return TruncatedModel(model, time.perf_counter() - started, deepest_layer, shallow.read_bytes, note)


def _load_placed(request: ModelRequest, placement: Placement, deepest_layer: int) -> TruncatedModel:
    started = time.perf_counter()
    checkpoint = request.checkpoint
    with loading_errors(checkpoint):
        model = placed.load_placed(
            checkpoint, request.config, request.quantization, placement, keep_in=request.keep_in
        )
    note = f"{deepest_layer} of {checkpoint.config['num_hidden_layers']} blocks of {checkpoint.name} loaded"
    return TruncatedModel(model, time.perf_counter() - started, deepest_layer, None, note)


def _load_whole(request: ModelRequest, deepest_layer: int, reason: str) -> TruncatedModel:
    started = time.perf_counter()
    checkpoint = request.checkpoint
    with loading_errors(checkpoint):
        model = _from_pretrained(
            request,
            checkpoint.name,
            revision=checkpoint.commit,
            device_map=_for_any_names(request.device_map),
            **quantization_setting(request),
        )
    note = (
        f"{reason}, which cannot be cut: all of its blocks are loaded, and every forward pass ends behind "
        f"layer {deepest_layer}"
    )
    return TruncatedModel(model, time.perf_counter() - started, blocks=None, read_bytes=None, note=note)


def _for_any_names(device_map: dict[str, int | str] | str) -> dict[str, int | str] | str:
    """The same devices for a model whose modules have other names: its only one, or accelerate's choice."""
    devices = {device_map} if isinstance(device_map, str) else set(device_map.values())
    return {"": devices.pop()} if len(devices) == 1 and devices != {"auto"} else "auto"


def _from_pretrained(
    request: ModelRequest, name: str, *, unneeded: frozenset[str] = frozenset(), **settings: Any
) -> PreTrainedModel:
    """Load a bare decoder and refuse one with weights missing, but for those that are not needed."""
    from transformers import AutoModel

    from probegrid.models.quantization import compute_in

    loaded: Any = AutoModel.from_pretrained(
        name,
        dtype=getattr(torch, request.config.dtype.value),
        trust_remote_code=request.config.trust_remote_code,
        use_safetensors=request.config.use_safetensors or None,  # False would refuse safetensors
        ignore_mismatched_sizes=True,  # reported, and refused below
        output_loading_info=True,
        **settings,
    )
    model, info = loaded
    refuse_missing(request.checkpoint, info, unneeded)
    compute_in(model, getattr(torch, request.config.dtype.value))
    decoder: PreTrainedModel = model.eval()
    return decoder


def _check_depth(checkpoint: Checkpoint, deepest_layer: int) -> None:
    text = checkpoint.config.get("text_config", checkpoint.config)
    blocks = text.get("num_hidden_layers", deepest_layer)  # another name: found out once it is loaded
    if not 0 <= deepest_layer <= blocks:
        raise ConfigError(
            f"probe.layers asks for layer {deepest_layer}, but {checkpoint.name} has {blocks} blocks: its layers are "
            f"0 (the embeddings) to {blocks}."
        )
