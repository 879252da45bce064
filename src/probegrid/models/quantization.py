"""How a quantization method is asked of transformers.

Knows bitsandbytes' settings; must not know devices or checkpoint files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint
from probegrid.schema import QuantizationMethod

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


def quantization_config(method: QuantizationMethod, checkpoint: Checkpoint) -> BitsAndBytesConfig | None:
    """Settings for ``from_pretrained``: NF4 with double quantization and bfloat16 compute, LLM.int8(), or None.

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
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


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
