"""Truncated loading: the same numbers as the whole model to the last bit, from the bytes that are needed alone."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from probegrid.errors import CheckpointError, ConfigError
from probegrid.models.blocks import decoder_blocks
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.load import load_model
from probegrid.models.load_truncated import load_truncated
from probegrid.models.pool import ModelPool
from probegrid.models.quantization import quantization_config
from probegrid.models.request import ModelRequest
from probegrid.planning.placement import Placement
from probegrid.schema import Dtype, ModelConfig, QuantizationMethod

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

torch.set_num_threads(1)

BLOCKS = 3
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("Qwen3Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": 4}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma": ("GemmaConfig", {}),
    "gemma2": ("Gemma2Config", {"sliding_window": 4, "query_pre_attn_scalar": 16}),
    "gemma3_text": (
        "Gemma3TextConfig",
        {
            "sliding_window": 4,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
WEIGHTS = ["float32", "bfloat16", "nf4", "int8"]
TOKENS = torch.tensor([[1, *range(40, 49)], [1, *range(60, 69)]])

Checkpoints = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The folder of a random checkpoint in many small shards, by its family."""
    root = tmp_path_factory.mktemp("checkpoints")
    return functools.cache(lambda family: save(root / family, *FAMILIES[family]))


def save(target: Path, config_class: str, changes: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**SHAPE | changes)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms would all be 1, and biases 0
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(target, max_shard_size="36KB")
    return target


def request(target: Path, weights: str = "float32", **config: Any) -> ModelRequest:
    method = QuantizationMethod(weights) if weights in ("nf4", "int8") else QuantizationMethod.none
    dtype = Dtype(weights) if method is QuantizationMethod.none else Dtype.bfloat16
    settings = ModelConfig(path=str(target), dtype=dtype, **config)
    return ModelRequest(find_checkpoint(settings), settings, method, on_cpu(BLOCKS))


def on_cpu(blocks: int) -> Placement:
    """A plan for the CPU."""
    return Placement("cpu", ("cpu",) * blocks, (), "cpu")


def settings_of(wanted: ModelRequest) -> dict[str, Any]:
    """What tells transformers to quantize."""
    config = quantization_config(wanted.quantization, wanted.checkpoint, wanted.config.dtype)
    return {} if config is None else {"quantization_config": config}


def layers_of_whole_model(wanted: ModelRequest) -> list[Tensor]:
    """Layer 0 to the last of the whole causal model, each as a block reads or returns it."""
    if wanted.quantization.packs and "quantization_config" not in wanted.checkpoint.config:
        model = load_model(wanted).model  # transformers leaves experts as they are
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            wanted.checkpoint.name, dtype=getattr(torch, wanted.config.dtype.value), device_map={"": "cpu"}
        ).eval()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = torch.bfloat16
    found: list[Tensor] = []
    blocks = model.model.layers
    blocks[0].register_forward_pre_hook(lambda _module, args: found.append(args[0].clone()))
    for block in blocks:
        block.register_forward_hook(lambda _module, _args, output: found.append(output.clone()))
    with torch.inference_mode():
        model(TOKENS)
    return found


def layer_of(model: Any, layer: int) -> Tensor:
    """The residual stream at one layer, read where it passes."""
    found: list[Tensor] = []
    blocks = decoder_blocks(model)

    def take(hidden: Tensor) -> None:
        found.append(hidden.clone())
        raise StopIteration

    if layer == 0:
        blocks[0].register_forward_pre_hook(lambda _module, args: take(args[0]))
    else:
        blocks[layer - 1].register_forward_hook(lambda _module, _args, output: take(output))
    with torch.inference_mode(), contextlib.suppress(StopIteration):
        model(TOKENS, use_cache=False)
    return found[0]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_equals_the_whole_model_to_the_last_bit(
    folder: Checkpoints, family: str, weights: str
) -> None:
    wanted = request(folder(family), weights)
    whole = layers_of_whole_model(wanted)
    assert len(whole) == BLOCKS + 1
    for layer, expected in enumerate(whole):
        loaded = load_truncated(replace(wanted, placement=on_cpu(layer)), layer)
        assert loaded.blocks == layer
        assert len(loaded.model.layers) == max(1, layer)
        assert not hasattr(loaded.model, "lm_head")
        assert torch.equal(layer_of(loaded.model, layer), expected), f"layer {layer}"


def test_a_last_layer_is_not_normalized(folder: Checkpoints) -> None:
    """The whole model's own last hidden state is: the two must differ."""
    wanted = request(folder("llama"))
    bare = transformers.AutoModel.from_pretrained(wanted.checkpoint.name, dtype=torch.float32).eval()
    cut = load_truncated(wanted, BLOCKS).model
    with torch.inference_mode():
        normalized, plain = (model(TOKENS, use_cache=False).last_hidden_state for model in (bare, cut))
    assert not torch.allclose(normalized, plain)
    assert torch.equal(plain, layers_of_whole_model(wanted)[BLOCKS])


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_a_checkpoint_that_is_stored_quantized(folder: Checkpoints, tmp_path: Path, method: str) -> None:
    asked = request(folder("llama"), method)
    stored = tmp_path / method
    transformers.AutoModelForCausalLM.from_pretrained(
        asked.checkpoint.name,
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        **settings_of(asked),
    ).save_pretrained(stored, max_shard_size="20KB")
    wanted = request(stored, method)
    for layer, expected in enumerate(layers_of_whole_model(wanted)):
        assert torch.equal(layer_of(load_truncated(wanted, layer).model, layer), expected), f"layer {layer}"


@pytest.mark.parametrize("layer", [0, 1])
def test_only_the_shards_that_are_needed_have_to_be_there(tmp_path: Path, layer: int) -> None:
    whole = save(tmp_path / "model", *FAMILIES["llama"])
    expected = layers_of_whole_model(request(whole))[layer]
    assert len(list(whole.glob("*.safetensors"))) >= 15
    kept = keep_needed_shards(whole, layer)
    loaded = load_truncated(request(whole), layer)
    assert torch.equal(layer_of(loaded.model, layer), expected)
    assert loaded.read_bytes == sum(
        parameter.nbytes for parameter in loaded.model.parameters() if not parameter.is_meta
    )
    assert loaded.read_bytes < sum((whole / name).stat().st_size for name in kept)
    assert f"{layer} of {BLOCKS} blocks" in loaded.note
    assert f"from {len(kept)} of" in loaded.note


def test_one_file_that_holds_everything(tmp_path: Path) -> None:
    target = tmp_path / "model"
    config = transformers.LlamaConfig(**SHAPE)
    transformers.LlamaForCausalLM(config).save_pretrained(target)
    assert (target / "model.safetensors").is_file()
    wanted = request(target)
    loaded = load_truncated(wanted, 2)
    assert torch.equal(layer_of(loaded.model, 2), layers_of_whole_model(wanted)[2])
    assert loaded.read_bytes == sum(
        parameter.nbytes for parameter in loaded.model.parameters() if not parameter.is_meta
    )


def test_pickled_weights_where_they_are_allowed(tmp_path: Path, folder: Checkpoints) -> None:
    target = tmp_path / "model"
    target.mkdir()
    source = folder("llama")
    weights = {key: value for file in source.glob("*.safetensors") for key, value in load_file(file).items()}
    torch.save(weights, target / "pytorch_model.bin")
    (target / "config.json").write_text((source / "config.json").read_text())
    with pytest.raises(CheckpointError, match="safetensors"):
        load_truncated(request(target), 1)
    loaded = load_truncated(request(target, use_safetensors=False), 1)
    assert torch.equal(layer_of(loaded.model, 1), layers_of_whole_model(request(source))[1])


def keep_needed_shards(target: Path, layer: int) -> set[str]:
    weight_map = json.loads((target / "model.safetensors.index.json").read_text())["weight_map"]
    kept = {
        name
        for key, name in weight_map.items()
        if "embed_tokens" in key or any(f".layers.{block}." in key for block in range(layer))
    }
    for file in target.glob("*.safetensors"):
        if file.name not in kept:
            file.unlink()
    return kept


def test_a_needed_shard_is_missing(tmp_path: Path) -> None:
    target = save(tmp_path / "model", *FAMILIES["llama"])
    index = json.loads((target / "model.safetensors.index.json").read_text())["weight_map"]
    gone = index["model.layers.1.mlp.up_proj.weight"]
    (target / gone).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {gone}, which holds model.layers.1"):
        load_truncated(request(target), 2)
    assert load_truncated(request(target), 1).blocks == 1


@pytest.mark.parametrize("key", ["model.embed_tokens.weight", "model.layers.1.self_attn.k_proj.weight"])
def test_a_needed_weight_is_missing(tmp_path: Path, key: str) -> None:
    """Transformers would fill it with random numbers."""
    target = save(tmp_path / "model", *FAMILIES["llama"])
    index_file = target / "model.safetensors.index.json"
    index = json.loads(index_file.read_text())
    shard = target / index["weight_map"].pop(key)
    index_file.write_text(json.dumps(index))
    weights = load_file(shard)
    del weights[key]
    save_file(weights, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"lacks 1 weights.*{key.removeprefix('model.')}"):
        load_truncated(request(target), 2)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    target = save(tmp_path / "model", *FAMILIES["llama"])
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    for load in (functools.partial(load_truncated, deepest_layer=1), load_model):
        with pytest.raises(CheckpointError, match=r"mlp\.(gate|up|down)_proj"):
            load(request(target))


def test_a_damaged_shard_is_named_as_such(tmp_path: Path) -> None:
    target = save(tmp_path / "model", *FAMILIES["llama"])
    for file in target.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is cut short"):
        load_truncated(request(target), 1)


def test_from_the_hub_only_the_needed_files_are_fetched(
    folder: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    source = folder("llama")
    fetched: list[str] = []

    def download(repository: str, name: str, *, revision: str) -> str:
        assert (repository, revision) == ("owner/model", "c0ffee")
        if not (source / name).exists():
            raise huggingface_hub.errors.EntryNotFoundError(name)
        fetched.append(name)
        return str(source / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    local = request(source)
    found = Checkpoint("owner/model", "c0ffee", "owner/model@c0ffee", local.checkpoint.config)
    loaded = load_truncated(replace(local, checkpoint=found), 1)
    assert torch.equal(layer_of(loaded.model, 1), layers_of_whole_model(local)[1])
    index = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {name for key, name in index.items() if "embed_tokens" in key or ".layers.0." in key}
    assert sorted(fetched) == sorted(["model.safetensors.index.json", *needed])


@pytest.mark.parametrize("layer", [-1, BLOCKS + 1])
def test_a_layer_that_the_model_does_not_have(folder: Checkpoints, layer: int) -> None:
    with pytest.raises(ConfigError, match=f"layer {layer}, .* to {BLOCKS}"):
        load_truncated(request(folder("llama")), layer)


def test_nothing_is_said_while_loading(folder: Checkpoints, capfd: pytest.CaptureFixture[str]) -> None:
    load_truncated(request(folder("llama")), 1)
    assert capfd.readouterr() == ("", "")


def test_a_pool_loads_again_only_what_is_too_shallow(folder: Checkpoints) -> None:
    pool, wanted = ModelPool(), request(folder("llama"))
    second = pool.get(wanted, 2)
    assert len(second.model.layers) == 2
    assert pool.get(replace(wanted, placement=on_cpu(1)), 1) is second
    assert pool.get(wanted, 3) is not second
    whole = pool.get(wanted)
    assert len(whole.model.model.layers) == BLOCKS
    assert pool.get(wanted, 1) is whole is pool.get(wanted)
    assert pool.make_way(replace(wanted, placement=on_cpu(2)))
    assert pool.loaded is whole
    assert not pool.make_way(request(folder("qwen2")))
    assert pool.loaded is None
    assert pool.get(request(folder("qwen2")), 1) is not whole
