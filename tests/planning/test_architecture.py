"""Parameters and bytes against published totals, transformers' own models and bitsandbytes' own tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from omegaconf import OmegaConf

import probegrid.conf
from probegrid.planning.architecture import (
    active_parameters,
    block_matrices,
    flops_per_token,
    kv_bytes_per_token,
    parameters,
    weight_bytes,
)
from probegrid.planning.families import architecture_from_config
from probegrid.schema import Architecture, Dtype, ModelConfig, QuantizationMethod

if TYPE_CHECKING:
    import torch

MODELS = Path(probegrid.conf.__file__).parent / "model"

PUBLISHED = {
    "llama1b": 1_235_814_400,
    "qwen1_5b": 1_543_714_304,
    "llama8b": 8_030_261_248,
    "qwen7b": 7_615_616_512,
    "mistral7b": 7_248_023_552,
    "mixtral8x7b": 46_702_792_704,
    "llama70b": 70_553_706_496,
    "llama33_70b": 70_553_706_496,
    "qwen72b": 72_706_203_648,
    "mistral_large": 122_610_069_504,
}

SMALL: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 64,
}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "head_dim": None}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": None}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("qwen3", {"attention_bias": True}),
    ("mistral", {}),
    ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ("gemma", {}),
    ("gemma2", {}),
    ("gemma3_text", {}),
]


def architecture_of(name: str) -> Architecture:
    """The facts in conf/model."""
    facts = yaml.safe_load((MODELS / f"{name}.yaml").read_text())["architecture"]
    return Architecture(**facts)


def small_config(model_type: str, changes: dict[str, Any]) -> Any:
    transformers = pytest.importorskip("transformers")
    values = SMALL | changes
    if model_type == "qwen2":
        del values["head_dim"]  # not a key of its config
    return transformers.AutoConfig.for_model(model_type, **values)


@pytest.mark.parametrize(("name", "total"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name: str, total: int) -> None:
    facts = architecture_of(name)
    assert parameters(facts).total(facts.layers) == total


def test_the_models_with_facts_that_are_checked_here_are_there() -> None:
    """Others' sizes are checked in ``test_choices.py``."""
    with_facts = {
        path.stem for path in MODELS.glob("*.yaml") if yaml.safe_load(path.read_text()).get("architecture")
    }
    assert with_facts >= set(PUBLISHED)


@pytest.mark.parametrize("name", [*PUBLISHED, "custom"])
def test_model_files_follow_the_schema(name: str) -> None:
    values = OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(MODELS / f"{name}.yaml"))
    assert OmegaConf.is_missing(values, "path") is (name == "custom")
    assert (values.architecture is None) is (name == "custom")
    assert all(value is None for value in values.resources.values())


def test_one_token_passes_through_two_of_eight_experts() -> None:
    assert active_parameters(architecture_of("mixtral8x7b")) == pytest.approx(12.9e9, rel=0.002)
    assert active_parameters(architecture_of("llama8b")) == PUBLISHED["llama8b"]


@pytest.mark.parametrize(
    ("method", "blocks", "with_head", "expected_gb"),
    [
        (QuantizationMethod.none, 80, True, 141.1),
        (QuantizationMethod.nf4, 80, True, 39.6),
        (QuantizationMethod.none, 22, False, 39.8),
        (QuantizationMethod.nf4, 22, False, 11.8),
    ],
)
def test_llama_70b_weighs_what_was_measured(
    method: QuantizationMethod, blocks: int, with_head: bool, expected_gb: float
) -> None:
    parts = weight_bytes(architecture_of("llama33_70b"), Dtype.bfloat16, method)
    assert parts.total(blocks, with_head=with_head) / 1e9 == pytest.approx(expected_gb, rel=0.003)


def test_22_blocks_of_llama_70b_are_28_percent_of_it() -> None:
    counts = parameters(architecture_of("llama33_70b"))
    assert counts.total(22, with_head=False) / 1e9 == pytest.approx(19.9, abs=0.05)
    assert counts.total(22, with_head=False) / counts.total(80) == pytest.approx(0.282, abs=0.0005)


def test_cache_of_grouped_heads() -> None:
    assert kv_bytes_per_token(architecture_of("llama70b"), Dtype.bfloat16) == 327_680
    assert kv_bytes_per_token(architecture_of("llama70b"), Dtype.float32, blocks=1) == 2 * 4096


def test_operations_are_two_a_parameter_outside_the_embedding() -> None:
    facts = architecture_of("llama8b")
    weights = facts.layers * sum(matrix.parameters for matrix in block_matrices(facts))
    assert flops_per_token(facts) == 2 * (weights + facts.vocab * facts.hidden)
    assert flops_per_token(facts, 100) - flops_per_token(facts) == 32 * 4 * 32 * 128 * 100


@pytest.mark.parametrize(("model_type", "changes"), FAMILIES)
def test_parameters_equal_those_of_transformers(model_type: str, changes: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = small_config(model_type, changes)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    counts = parameters(architecture_from_config(config.to_dict()))
    assert counts.total(config.num_hidden_layers) == sum(weight.numel() for weight in model.parameters())
    assert counts.block == sum(weight.numel() for weight in model.model.layers[1].parameters())
    assert counts.final_norm == sum(weight.numel() for weight in model.model.norm.parameters())
    assert counts.embedding == model.model.embed_tokens.weight.numel()


@pytest.mark.parametrize("method", [QuantizationMethod.nf4, QuantizationMethod.int8])
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gemma3_text"])
def test_bytes_equal_those_of_bitsandbytes(
    method: QuantizationMethod, model_type: str, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = small_config(model_type, {})
    transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path)
    if method is QuantizationMethod.nf4:
        quantization = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    else:
        quantization = transformers.BitsAndBytesConfig(load_in_8bit=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=quantization, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    parts = weight_bytes(architecture_from_config(config.to_dict()), Dtype.bfloat16, method)
    assert parts.block == sum(map(stored_bytes, model.model.layers[0].parameters()))
    assert parts.total(config.num_hidden_layers) == sum(map(stored_bytes, model.parameters()))


def test_bytes_of_nf4_experts_equal_those_of_bitsandbytes() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    functional = pytest.importorskip("bitsandbytes.functional")
    config = small_config("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2})
    block = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).model.layers[0]
    expected = 0
    for name, weight in block.named_parameters():
        if "proj" in name:
            packed, state = functional.quantize_4bit(
                weight.detach(), compress_statistics=True, quant_type="nf4"
            )
            expected += packed.nbytes + state_bytes(state)
        else:
            expected += weight.nbytes
    facts = architecture_from_config(config.to_dict())
    assert weight_bytes(facts, Dtype.bfloat16, QuantizationMethod.nf4).block == expected


def stored_bytes(weight: torch.Tensor) -> int:
    """Bytes of a parameter with the constants bitsandbytes keeps beside it."""
    state = getattr(weight, "quant_state", None)
    scales = getattr(weight, "SCB", None)
    return (
        weight.nbytes
        + (state_bytes(state) if state is not None else 0)
        + (scales.nbytes if scales is not None else 0)
    )


def state_bytes(state: Any) -> int:
    """Bytes of the tensors of a doubly quantized ``QuantState``."""
    tensors = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    return sum(int(tensor.nbytes) for tensor in tensors)
