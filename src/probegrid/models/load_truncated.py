"""From a checkpoint to its first blocks in memory: all that the activations of a layer are computed from.

Layer L is the residual stream after L blocks: the embeddings for L=0, never passed through the final norm. The
model is cut behind the deepest layer that is asked for: no later block, no final norm, no head. What cannot be
cut is loaded whole; reading it stops behind the deepest layer all the same (``inference.residual``).

Knows how a cut model is loaded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probegrid.errors import ConfigError
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.models.facts import loaded_by_transformers
from probegrid.models.load import LoadedModel, loading_errors
from probegrid.models.load_by_parts import load_placed
from probegrid.models.request import ModelRequest
from probegrid.models.storage import storage_note
from probegrid.planning.placement import Placement

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class TruncatedModel(LoadedModel):
    """The first blocks of a decoder without its head, whose final norm is the identity.

    A model that could not be cut is a bare decoder as it is.
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
        request: the checkpoint, its dtype, its quantization, and a placement of these blocks or more.
        deepest_layer: 0 to the number of blocks.

    Raises:
        ConfigError: the model has fewer blocks.
        CheckpointError: weights that are missing, damaged, or not of this architecture.
    """
    checkpoint = request.checkpoint
    _check_depth(request, deepest_layer)
    reason = loaded_by_transformers(checkpoint, request.config)
    if reason is not None:
        return _load_whole(request, deepest_layer, reason)
    started = time.perf_counter()
    placement = request.placement or Placement.on_the_cpu(deepest_layer, with_head=False)
    with loading_errors(checkpoint):
        placed = load_placed(
            checkpoint,
            request.config,
            request.quantization,
            placement.first(deepest_layer),
            keep_in=request.keep_in,
        )
    weights = placed.weights
    note = f"{deepest_layer} of {checkpoint.blocks} blocks of {checkpoint.name} loaded"
    if weights.read_files:
        read_gb, files = weights.read_bytes / BYTES_PER_GB, len(weights.read_files)
        note += f": {read_gb:.2f} GB read from {files} of {weights.all_files} files"
    notes = (storage_note(placed.model),)
    spent = time.perf_counter() - started
    return TruncatedModel(placed.model, spent, deepest_layer, weights.read_bytes, note, notes=notes)


def _load_whole(request: ModelRequest, deepest_layer: int, reason: str) -> TruncatedModel:
    from probegrid.models.load_whole import load_whole

    started = time.perf_counter()
    with loading_errors(request.checkpoint):
        causal: Any = load_whole(request)
    model: PreTrainedModel = causal.base_model
    note = (
        f"{reason}, which cannot be cut: all of its blocks are loaded, and every forward pass ends behind "
        f"layer {deepest_layer}"
    )
    spent = time.perf_counter() - started
    return TruncatedModel(
        model, spent, blocks=None, read_bytes=None, note=note, notes=(storage_note(causal),)
    )


def _check_depth(request: ModelRequest, deepest_layer: int) -> None:
    checkpoint = request.checkpoint
    if not 0 <= deepest_layer <= checkpoint.blocks:
        raise ConfigError(
            f"probe.layers asks for layer {deepest_layer}, but {checkpoint.name} has {checkpoint.blocks} blocks: its "
            f"layers are 0 (the embeddings) to {checkpoint.blocks}."
        )
