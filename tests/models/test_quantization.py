"""NF4 in a float16 model is multiplied in float16: cards before Ampere emulate bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.load import load_model
from probegrid.models.quantized_store import folder_of
from probegrid.models.request import ModelRequest
from probegrid.schema import Dtype, ModelConfig, QuantizationMethod

Find = Callable[[str], Checkpoint]
Load = Callable[..., PreTrainedModel]
Logits = Callable[[PreTrainedModel], Tensor]
NF4 = QuantizationMethod.nf4


def compute_dtypes(model: PreTrainedModel) -> set[torch.dtype]:
    return {part.compute_dtype for part in model.modules() if hasattr(part, "compute_dtype")}


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize(
    ("dtype", "multiplied"),
    [(Dtype.float16, torch.float16), (Dtype.bfloat16, torch.bfloat16), (Dtype.float32, torch.bfloat16)],
)
def test_layers_multiply_in_the_type_of_the_model(
    found: Find, load: Load, family: str, dtype: Dtype, multiplied: torch.dtype
) -> None:
    assert compute_dtypes(load(found(family), "nf4", dtype=dtype)) == {multiplied}


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_weights_that_were_stored_for_bfloat16_are_multiplied_in_float16(
    found: Find, load: Load, logits: Logits, tmp_path: Path, family: str
) -> None:
    checkpoint = found(family)
    load(checkpoint, "nf4", dtype=Dtype.bfloat16, keep_in=tmp_path)
    stored = find_checkpoint(ModelConfig(path=str(folder_of(tmp_path, checkpoint, NF4, Dtype.bfloat16))))
    half = load(stored, "nf4", dtype=Dtype.float16)
    assert compute_dtypes(half) == {torch.float16}
    whole = load(stored, "nf4", dtype=Dtype.float32)
    for part in whole.modules():
        if hasattr(part, "compute_dtype"):
            part.compute_dtype = torch.float32
    exact, rough = logits(whole), logits(half)
    assert rough.dtype == torch.float16
    assert (rough.float() - exact).norm() < 0.01 * exact.norm()


def test_so_are_those_that_transformers_loads(found: Find, load: Load, tmp_path: Path) -> None:
    checkpoint = found("llama")
    load(checkpoint, "nf4", dtype=Dtype.bfloat16, keep_in=tmp_path)
    folder = str(folder_of(tmp_path, checkpoint, NF4, Dtype.bfloat16))
    for path in (folder, checkpoint.name):
        config = ModelConfig(path=path, dtype=Dtype.float16)
        model = load_model(ModelRequest(find_checkpoint(config), config, NF4)).model
        assert compute_dtypes(model) == {torch.float16}
