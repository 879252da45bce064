"""Loading a checkpoint into a placement, from its quantized copy where there is one.

Knows which checkpoints our own loading takes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from probegrid.errors import CheckpointError
from probegrid.models.build import CheckpointParts, Parts, assemble
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.quantization import quantization_config
from probegrid.models.quantized_store import QuantizedStore
from probegrid.models.shallow import obstacle as not_a_plain_decoder
from probegrid.models.weights import Weights
from probegrid.planning.placement import Placement
from probegrid.schema import ModelConfig, QuantizationMethod

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def obstacle(checkpoint: Checkpoint, config: ModelConfig) -> str | None:
    """Why a checkpoint must be loaded by transformers itself, without streamed blocks; None if it need not."""
    if not config.use_safetensors:
        return f"{checkpoint.name} may be pickled (model.use_safetensors=false)"
    return not_a_plain_decoder(checkpoint, trust_remote_code=config.trust_remote_code)


def load_placed(
    checkpoint: Checkpoint,
    config: ModelConfig,
    method: QuantizationMethod,
    placement: Placement,
    *,
    keep_in: str | Path | None,
) -> PreTrainedModel:
    """Load a checkpoint for which ``obstacle`` is None.

    Args:
        checkpoint: whole, quantized or not, or the first blocks of one.
        config: dtype of what is not quantized.
        method: how the blocks' matrices are held. A checkpoint that is quantized already must agree.
        placement: where each part lies; without a head, the bare decoder of the first blocks is loaded.
        keep_in: the store that the quantized copy is kept in and read from; None: quantize every time.

    Raises:
        CheckpointError: weights that are missing, damaged, of another architecture, or quantized otherwise.
        StoreError: the kept copy is damaged or cannot be written.
    """
    from transformers import AutoConfig, GenerationConfig

    settings = quantization_config(method, checkpoint)  # checks a quantized checkpoint
    stored = "quantization_config" in checkpoint.config
    dtype = getattr(torch, config.dtype.value)
    parts: Parts = CheckpointParts(Weights(checkpoint), method, dtype, stored=stored)
    if settings is not None and keep_in is not None:
        parts = QuantizedStore(keep_in, checkpoint, method, config.dtype, parts)
    model_config = AutoConfig.from_pretrained(checkpoint.name, revision=checkpoint.commit)
    try:
        model = assemble(model_config, placement, parts, dtype)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
    if placement.head is not None:
        with contextlib.suppress(OSError):  # most checkpoints bring one
            revision = checkpoint.commit or "main"
            model.generation_config = GenerationConfig.from_pretrained(checkpoint.name, revision=revision)
    return model
