"""What is asked of loading, and what it must not pass over.

Knows checkpoints and placements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint
from probegrid.planning.placement import Placement
from probegrid.schema import ModelConfig, QuantizationMethod


@dataclass(frozen=True)
class ModelRequest:
    """Everything that determines which weights are in memory, and where."""

    checkpoint: Checkpoint
    config: ModelConfig
    quantization: QuantizationMethod
    placement: Placement | None = None
    """The plan's, of the whole model or of all the blocks that are read; None: the CPU where there is no GPU, else as
    accelerate spreads it."""
    keep_in: str | None = None
    """Store that the quantized copy of an unquantized checkpoint is kept in and read from; None: none is kept."""


def refuse_missing(
    checkpoint: Checkpoint, info: dict[str, Any], unneeded: frozenset[str] = frozenset()
) -> None:
    """Refuse what transformers would fill with random numbers.

    Args:
        checkpoint: named in the message.
        info: what ``from_pretrained`` says of its loading.
        unneeded: weights that may be missing, since nothing computes with them.

    Raises:
        CheckpointError: a weight is missing, or has another shape than the architecture's.
    """
    missing = sorted(info["missing_keys"] - unneeded)
    missing += sorted(str(key) for key in info.get("mismatched_keys", ()))
    if missing:
        raise CheckpointError(
            f"{checkpoint.name} lacks {len(missing)} weights of its architecture, {missing[0]} among them; "
            "finish its download, or correct its config.json."
        )
