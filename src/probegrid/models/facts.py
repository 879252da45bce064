"""The facts of a checkpoint that a plan is made from, from the cheapest source that has them.

The config alone of a plain family; else the config's numbers and the headers of the files; else, where there are no
headers or they say nothing of unquantized shapes, a skeleton on the meta device, which alone imports torch.

Knows checkpoints and where their headers are.
"""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from probegrid.errors import CheckpointError, ConfigError, UnknownArchitecture
from probegrid.hardware.devices import Hardware
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.fingerprint import weight_files
from probegrid.planning.architecture import Parts
from probegrid.planning.families import architecture_from_config, is_tied, numbers_by_any_name
from probegrid.planning.headers import (
    Headers,
    TensorHeader,
    has_head,
    local_headers,
    stored_bytes,
    weights_by_headers,
)
from probegrid.planning.stored import StoredForm, stored_form
from probegrid.schema import Architecture, BlockWeights, DecoderWeights, ModelConfig

_SHARE_MATRICES = ("zamba", "zamba2")
"""Families of which several blocks hold the same matrices, which are not packed; no header says so."""


@dataclass(frozen=True)
class CheckpointFacts:
    """What is known of a checkpoint before its weights are read."""

    architecture: Architecture
    stored: Parts | None
    """Bytes of each part as a library's quantization left it; None where nothing is quantized, or bytes are exact by
    the architecture."""


def loaded_by_transformers(checkpoint: Checkpoint, config: ModelConfig) -> str | None:
    """Why a checkpoint must be loaded by transformers itself, whole and without streamed blocks; None: it need not."""
    if config.trust_remote_code and "auto_map" in checkpoint.config:
        return f"{checkpoint.name} brings its own code"
    form = stored_form(checkpoint.config)
    if form is not None and not form.is_bitsandbytes:
        return f"{checkpoint.name} is stored as {form.name}"
    return None


def is_unpacked(form: StoredForm, hardware: Hardware) -> bool:
    """Whether what is stored so is unpacked on this hardware.

    compressed-tensors is everywhere, FP8 and MXFP4 are where no GPU multiplies them.
    """
    if form.kind == "compressed-tensors":
        return True
    if form.kind not in ("fp8", "mxfp4"):
        return False
    return not hardware.gpus or (form.kind == "mxfp4" and importlib.util.find_spec("kernels") is None)


def facts_of(checkpoint: Checkpoint, *, use_safetensors: bool = True) -> CheckpointFacts:
    """The facts of a checkpoint.

    Raises:
        UnknownArchitecture: transformers does not know the family either, and there are no headers.
        CheckpointError: its files cannot be read.
    """
    return _facts(_ByContent(checkpoint), use_safetensors)


class _ByContent:
    """A checkpoint that is equal to another of the same content."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def __hash__(self) -> int:
        return hash(self.checkpoint.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByContent) and self.checkpoint.fingerprint == other.checkpoint.fingerprint


@lru_cache(maxsize=64)
def _facts(held: _ByContent, use_safetensors: bool) -> CheckpointFacts:
    checkpoint = held.checkpoint
    form = stored_form(checkpoint.config)
    try:
        known: Architecture | None = architecture_from_config(checkpoint.config)
    except UnknownArchitecture:
        known = None
    by_arithmetic = form is None or form.method.packs
    if known is not None and by_arithmetic:
        return CheckpointFacts(known, None)
    headers = headers_of(checkpoint, use_safetensors=use_safetensors)
    shares = checkpoint.config.get("model_type") in _SHARE_MATRICES
    if known is None and form is None and headers and not shares:
        with contextlib.suppress(ConfigError):
            return CheckpointFacts(_by_headers(checkpoint, headers), None)
    architecture = known or by_skeleton(checkpoint)
    stored = None
    if headers and form is not None:
        stored = stored_bytes(headers, architecture.layers, tied=architecture.tied_embeddings)
    return CheckpointFacts(architecture, stored)


def headers_of(checkpoint: Checkpoint, *, use_safetensors: bool = True) -> dict[str, TensorHeader] | None:
    """The headers of a checkpoint's files, in its folder or on the hub; None where there are none to be had."""
    if checkpoint.commit is None:
        files = weight_files(Path(checkpoint.name), use_safetensors=use_safetensors)
        return local_headers(files)
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError

    try:
        found = get_safetensors_metadata(checkpoint.name, revision=checkpoint.commit)
    except (HfHubHTTPError, NotASafetensorsRepoError, OSError, ValueError):
        return None
    return {
        name: TensorHeader(str(tensor.dtype), tuple(tensor.shape))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }


def _by_headers(checkpoint: Checkpoint, headers: Headers) -> Architecture:
    numbers = numbers_by_any_name(checkpoint.config)
    told = is_tied(checkpoint.config)
    tied = not has_head(headers) if told is None else told
    weights = weights_by_headers(headers, numbers.layers, tied=tied)
    if any(block.matrices == 0 for block in weights.blocks) or not weights.embedding:
        raise ConfigError("tensors are not named as decoders name them")
    return replace(numbers, tied_embeddings=tied, weights=weights)


def by_skeleton(checkpoint: Checkpoint) -> Architecture:
    """The facts by a model on the meta device.

    Raises:
        UnknownArchitecture: transformers has no causal model of this family.
    """
    from probegrid.models.load_by_parts import config_of

    try:
        return architecture_of_skeleton(config_of(checkpoint))
    except (CheckpointError, ValueError, KeyError, OSError) as error:
        raise UnknownArchitecture(
            f"model_type={checkpoint.config.get('model_type')!r} in the config.json of {checkpoint.name} cannot be "
            f"planned: {str(error).splitlines()[0]} Give its numbers under model.architecture."
        ) from error


def architecture_of_skeleton(config: Any) -> Architecture:
    """The facts of a transformers config by the model that it makes, none of whose weights are in memory."""
    from probegrid.models.parts import Place, parts_of
    from probegrid.models.quantization import is_matrix
    from probegrid.models.skeleton import shape_of

    model = shape_of(config)
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    outside = dict.fromkeys(Place, 0)
    blocks: list[BlockWeights] = []
    for part in parts_of(model):
        held = {name: own[name] for name in part.tensors if name in own}
        if part.place is not Place.block:
            outside[part.place] += sum(tensor.numel() for tensor in held.values())
            continue
        matrices = {name: tensor for name, tensor in held.items() if is_matrix(model, name)}
        experts = {
            name: t.numel() for name, t in matrices.items() if ".experts." in f".{name}." and t.dim() == 3
        }
        dense = [tensor.numel() for name, tensor in matrices.items() if name not in experts]
        packed = sum(tensor.numel() for tensor in matrices.values())
        found = BlockWeights(
            matrices=packed,
            rows=sum(tensor.numel() // tensor.shape[-1] for tensor in matrices.values()),
            tensors=len(matrices),
            largest=max([sum(experts.values()), *dense], default=0),
            others=sum(tensor.numel() for tensor in held.values()) - packed,
            experts=sum(experts.values()),
        )
        if blocks and replace(blocks[-1], count=1) == found:
            blocks[-1].count += 1
        else:
            blocks.append(found)
    layers = sum(block.count for block in blocks)
    numbers = numbers_by_any_name(config.to_dict(), layers)
    weights = DecoderWeights(
        embedding=outside[Place.embedding] + outside[Place.front],
        tail=outside[Place.tail],
        head=outside[Place.head],
        blocks=blocks,
    )
    output = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is output]
    is_one = weights.head == 0 or any(f"{name}.weight" in tied for name in names)
    return replace(numbers, tied_embeddings=is_one, weights=weights)
