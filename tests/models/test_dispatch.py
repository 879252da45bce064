"""Every part computes on its own device, inputs move at the borders, and activations are those of the whole model."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedModel

from probegrid.hardware.devices import Cpu, Hardware, assumed_gpu
from probegrid.models import dispatch as dispatching
from probegrid.models.blocks import execution_device
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.dispatch import dispatch
from probegrid.models.kv_budget import KVBudget
from probegrid.models.parts import parts_of
from probegrid.models.pool import ModelPool
from probegrid.models.request import ModelRequest
from probegrid.models.skeleton import skeleton, without_head
from probegrid.planning.placement import Device, Placement
from probegrid.planning.plan import plan
from probegrid.planning.workload import Workload
from probegrid.schema import (
    Architecture,
    DeviceMapConfig,
    Dtype,
    ModelConfig,
    PlacementStrategy,
    QuantizationMethod,
)

Find = Callable[[str], Checkpoint]
Load = Callable[..., PreTrainedModel]

BLOCKS = 5
META = torch.device("meta")


@pytest.fixture
def meta_is_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second device without a second device: torch refuses to compute with tensors of both."""

    def torch_device(device: Device) -> torch.device:
        return torch.device("cpu") if device == "cpu" else META

    monkeypatch.setattr(dispatching, "torch_device", torch_device)


def small_config(blocks: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        pad_token_id=0,
    )


@pytest.mark.usefixtures("meta_is_the_gpu")
@pytest.mark.parametrize("embedding", [0, "cpu"])
@pytest.mark.parametrize("with_head", [True, False])
def test_the_embedding_is_looked_up_where_it_lies(embedding: Device, with_head: bool) -> None:
    model: Any = skeleton(small_config(2), None, torch.float32)
    if not with_head:
        model = without_head(model)
    if embedding == "cpu":
        model.base_model.embed_tokens.to_empty(device="cpu")
    model.base_model.rotary_emb.to(META)
    model.set_attn_implementation("eager")
    dispatch(model, Placement(embedding, (0, 0), (), 0 if with_head else None), {})
    tokens = torch.tensor([[3, 4, 5]])
    positions = torch.arange(3).unsqueeze(0)
    output = model(input_ids=tokens, position_ids=positions, attention_mask=torch.ones(1, 3))
    assert (output.logits if with_head else output.last_hidden_state).device == META
    decoder_alone = model.base_model(input_ids=tokens, position_ids=positions)
    assert decoder_alone.last_hidden_state.device == META


def test_models_of_one_config_attend_each_in_its_own_way() -> None:
    config = small_config(2)
    first, second = (skeleton(config, None, torch.float32) for _ in range(2))
    first.set_attn_implementation("eager")
    assert second.config._attn_implementation != "eager"
    assert skeleton(config, None, torch.float32).config._attn_implementation != "eager"


@pytest.mark.usefixtures("meta_is_the_gpu")
def test_a_block_says_where_it_computes_wherever_its_weights_wait(found: Find, load: Load) -> None:
    model: Any = load(found("llama"), "nf4", Placement("cpu", (0,) * BLOCKS, (1, 3), 0))
    block = model.base_model.layers[1]
    assert next(block.parameters()).device.type == "cpu"
    assert execution_device(block) == META
    assert execution_device(model.base_model.embed_tokens) == torch.device("cpu")


def test_keys_and_values_are_counted_where_streamed_blocks_compute(found: Find, load: Load) -> None:
    model = load(found("llama"), "nf4", Placement("cpu", (0,) * BLOCKS, (1, 3), 0))
    assert KVBudget.of(model).bytes_per_token == {torch.device("cpu"): 2 * 2 * 16 * 2 * BLOCKS}


@pytest.mark.parametrize("method", ["none", "nf4"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_activations_are_those_of_the_whole_model(
    found: Find, load: Load, tokens: Tensor, family: str, method: str
) -> None:
    from probegrid.inference.residual import ResidualReader

    rows, spans = tokens.tolist(), [[(0, 4), (3, 9)], [(1, 2)]]
    layers = [0, 2, 3]
    expected = ResidualReader(load(found(family), method), layers).read(rows, spans)
    cut = load(found(family), method, Placement("cpu", (0, 1, 0), (0, 2), None))
    whole = load(found(family), method, Placement("cpu", (0, 1, 0, 1, 0), (0, 2, 3, 4), 0))
    assert len(cut.base_model.layers) == 3
    assert isinstance(cut.base_model.norm, nn.Identity)
    for model in (cut, whole):
        for _ in range(2):
            found_here = ResidualReader(model, layers).read(rows, spans)
            assert all(torch.equal(found_here[layer], expected[layer]) for layer in layers)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    heads = draw(st.sampled_from((2, 4)))
    return Architecture(
        layers=draw(st.integers(1, 12)),
        hidden=8 * heads,
        heads=heads,
        kv_heads=draw(st.sampled_from((1, 2))),
        head_dim=8,
        intermediate=draw(st.integers(8, 64)),
        vocab=draw(st.integers(16, 300)),
        tied_embeddings=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        context=4096,
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    architecture=architectures(),
    memory_mb=st.lists(st.integers(0, 400), min_size=0, max_size=4),
    method=st.sampled_from(QuantizationMethod),
    strategy=st.sampled_from((PlacementStrategy.auto, PlacementStrategy.balanced)),
    depth=st.none() | st.integers(0, 12),
)
def test_every_plan_is_one_that_accelerate_accepts_and_the_dispatcher_obeys(
    architecture: Architecture,
    memory_mb: list[int],
    method: QuantizationMethod,
    strategy: PlacementStrategy,
    depth: int | None,
) -> None:
    from accelerate.utils import check_device_map

    from probegrid.errors import PlanError

    gpus = tuple(replace(assumed_gpu(11), memory_gb=megabytes / 1e3 / 1000) for megabytes in memory_mb)
    depth = None if depth is None else min(depth, architecture.layers)
    try:
        found = plan(
            architecture,
            dtype=Dtype.bfloat16,
            quantization=method,
            device_map=DeviceMapConfig(strategy=strategy, overhead_gb=0.0),
            hardware=Hardware(gpus, Cpu()),
            workload=Workload(4, 6, 5, 3 if depth is None else 0, deepest_layer=depth),
        )
    except PlanError:
        return
    placement, with_head = found.placement, depth is None
    model: Any = skeleton(config_of(architecture), found.blocks, torch.bfloat16)
    if with_head:
        check_device_map(model, {part.name: part.device(placement) for part in parts_of(model)})
    else:
        model = without_head(model)
    dispatch(model, replace(placement, streamed=()), {})
    for block, device in zip(model.base_model.layers, placement.blocks, strict=depth != 0):
        assert execution_device(block) == dispatching.torch_device(device)


def config_of(architecture: Architecture) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=architecture.vocab,
        hidden_size=architecture.hidden,
        intermediate_size=architecture.intermediate,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.kv_heads,
        attention_bias=architecture.attention_bias,
        tie_word_embeddings=architecture.tied_embeddings,
        pad_token_id=0,
    )


@pytest.mark.parametrize("method", ["none", "nf4"])
def test_the_pool_loads_into_a_placement_and_releases_it(
    found: Find, load: Load, tmp_path: Path, method: str
) -> None:
    placement = Placement("cpu", (0, 1, 0, 1, 0), (0, 3, 4), 1)
    request = ModelRequest(
        found("llama"),
        ModelConfig(path=found("llama").name),
        QuantizationMethod(method),
        placement,
        keep_in=str(tmp_path),
    )
    pool = ModelPool()
    loaded = pool.get(request)
    assert loaded.eos_ids == [2]
    assert pool.get(request) is loaded
    alive = weakref.ref(loaded.model)
    del loaded
    pool.release()
    assert alive() is None
