"""Loading a checkpoint into a placement, from its quantized copy where there is one.

Knows which checkpoints our own loading takes.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from probegrid.errors import CheckpointError
from probegrid.models.build import CheckpointParts, MissingWeights, Parts, assembled
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.parts import parts_of
from probegrid.models.quantization import quantization_config
from probegrid.models.quantized_store import QuantizedStore
from probegrid.models.skeleton import has_text_inside, shape_of, skeleton
from probegrid.models.weights import Weights
from probegrid.planning.placement import Placement
from probegrid.planning.stored import stored_form
from probegrid.schema import ModelConfig, QuantizationMethod

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Placed:
    """A model in its placement."""

    model: PreTrainedModel
    weights: Weights
    """Knows what was read of the files."""
    unplaced: list[str]
    """Names in the files that the model has no place for; empty where it was cut."""


def load_placed(
    checkpoint: Checkpoint,
    config: ModelConfig,
    method: QuantizationMethod,
    placement: Placement,
    *,
    keep_in: str | Path | None,
) -> Placed:
    """Load a checkpoint for which ``loaded_by_transformers`` is None.

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
    quantization_config(method, checkpoint)  # checks a quantized checkpoint
    model_config = config_of(checkpoint)
    try:
        return _placed(checkpoint, config, method, placement, model_config, keep_in=keep_in)
    except MissingWeights as error:
        if not has_text_inside(model_config):
            raise CheckpointError(f"{checkpoint.name}: {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
    try:  # its language model's files are not those of a model of its own
        return _placed(checkpoint, config, method, placement, model_config, keep_in=keep_in, alone=False)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error


def _placed(
    checkpoint: Checkpoint,
    config: ModelConfig,
    method: QuantizationMethod,
    placement: Placement,
    model_config: PreTrainedConfig,
    *,
    keep_in: str | Path | None,
    alone: bool = True,
) -> Placed:
    from transformers import GenerationConfig

    dtype = getattr(torch, config.dtype.value)
    empty = skeleton(model_config, len(placement.blocks), dtype, alone=alone)
    weights = Weights(checkpoint, use_safetensors=config.use_safetensors)
    own = CheckpointParts(empty, weights, method, dtype)
    parts: Parts = own
    if method.packs and stored_form(checkpoint.config) is None and keep_in is not None:
        names = [part.name for part in parts_of(shape_of(model_config))]
        parts = QuantizedStore(keep_in, checkpoint, method, config.dtype, own, names)
    model = assembled(empty, placement, parts, dtype)
    with_head = placement.head is not None
    unplaced = own.unplaced if with_head and parts is own else []
    if with_head:
        with contextlib.suppress(OSError):  # most checkpoints bring one
            revision = checkpoint.commit or "main"
            model.generation_config = GenerationConfig.from_pretrained(checkpoint.name, revision=revision)
    return Placed(model, weights, unplaced)


def config_of(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The checkpoint's config as transformers reads it; what says how it is stored is left out."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    family = checkpoint.config["model_type"]
    found: Any
    if family in CONFIG_MAPPING:
        found = CONFIG_MAPPING[family].from_dict(copy.deepcopy(checkpoint.config))
    else:
        found = AutoConfig.from_pretrained(checkpoint.name, revision=checkpoint.commit)
    for part in (found, found.get_text_config(decoder=True)):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    read: PreTrainedConfig = found
    return read
