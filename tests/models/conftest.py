"""Small random checkpoints of every kind that is loaded part by part, and placements to put them in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.load_by_parts import load_placed
from probegrid.planning.placement import Placement
from probegrid.schema import Dtype, ModelConfig, QuantizationMethod

torch.set_num_threads(1)

BLOCKS = 5

_SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "gemma2": ("Gemma2Config", {"sliding_window": 4, "query_pre_attn_scalar": 16}),
}

Find = Callable[[str], Checkpoint]
Load = Callable[..., PreTrainedModel]
Logits = Callable[[PreTrainedModel], Tensor]


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """A random float32 checkpoint in several shards, by its family; no test may change it."""
    root = tmp_path_factory.mktemp("parts")

    @functools.cache
    def make(family: str) -> Checkpoint:
        class_name, changes = _FAMILIES[family]
        torch.manual_seed(0)
        config = getattr(transformers, class_name)(**_SHAPE | changes)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # norms would all be 1, and biases 0
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        model.save_pretrained(root / family, max_shard_size="100KB")
        return find_checkpoint(ModelConfig(path=str(root / family)))

    return make


@pytest.fixture(scope="session")
def load() -> Load:
    """Load a checkpoint into a placement, on the CPU whatever its devices; everything resident where none is given."""

    def load_checkpoint(
        checkpoint: Checkpoint,
        method: str,
        placement: Placement | None = None,
        *,
        dtype: Dtype = Dtype.bfloat16,
        keep_in: Path | None = None,
    ) -> PreTrainedModel:
        resident = Placement("cpu", ("cpu",) * BLOCKS, (), "cpu")
        config = ModelConfig(path=checkpoint.name, dtype=dtype)
        return load_placed(
            checkpoint, config, QuantizationMethod(method), placement or resident, keep_in=keep_in
        ).model

    return load_checkpoint


@pytest.fixture(scope="session")
def tokens() -> Tensor:
    """Two rows of ten token ids."""
    return torch.tensor([[1, *range(40, 49)], [1, *range(60, 69)]])


@pytest.fixture(scope="session")
def logits(tokens: Tensor) -> Logits:
    """What a causal model says after each of ``tokens``."""

    def run(model: PreTrainedModel) -> Tensor:
        with torch.inference_mode():
            return model(input_ids=tokens).logits

    return run
