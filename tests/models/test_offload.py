"""Blocks that wait in CPU memory compute to the last bit what they compute where they lie, from two buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from probegrid.inference.generation import Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.dispatch import streamed_bytes
from probegrid.models.offload import Conveyor, ParkedBlock, page_locked
from probegrid.models.quantization import constants_of
from probegrid.planning.placement import BUFFERS, Placement
from probegrid.schema import Dtype

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

Find = Callable[[str], Checkpoint]
Load = Callable[..., PreTrainedModel]
Logits = Callable[[PreTrainedModel], Tensor]

BLOCKS = 5
STREAMED = Placement("cpu", (0, 1, 0, 1, 0), (0, 1, 2, 4), 1)
KINDS = [
    (family, method)
    for family in ("llama", "qwen2", "mistral", "mixtral", "gemma2")
    for method in ("none", "int8", "nf4")
    if (family, method) != ("mixtral", "int8")
]


class NoText:
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return ""


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    blocks = tuple(draw(st.lists(st.sampled_from((0, 1)), min_size=BLOCKS, max_size=BLOCKS)))
    streamed = draw(st.sets(st.integers(0, BLOCKS - 1)))
    return Placement(draw(st.sampled_from((0, "cpu"))), blocks, tuple(sorted(streamed)), blocks[-1])


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    yield from (getattr(holder, attribute) for holder, attribute in constants_of(module))


def lies_in(tensor: Tensor, buffer: Tensor) -> bool:
    return buffer.data_ptr() <= tensor.data_ptr() < buffer.data_ptr() + buffer.nbytes


@pytest.mark.parametrize(("family", "method"), KINDS)
def test_streamed_blocks_change_no_bit(
    found: Find, load: Load, logits: Logits, family: str, method: str
) -> None:
    expected = logits(load(found(family), method))
    model = load(found(family), method, STREAMED)
    for _ in range(3):
        assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("dtype", [Dtype.float32, Dtype.bfloat16])
@pytest.mark.parametrize(("family", "method"), [kind for kind in KINDS if kind != ("mixtral", "nf4")])
def test_weights_are_those_that_transformers_loads(
    found: Find, load: Load, logits: Logits, family: str, method: str, dtype: Dtype
) -> None:
    configs = {
        "none": None,
        "int8": BitsAndBytesConfig(load_in_8bit=True),
        "nf4": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    }
    stock = AutoModelForCausalLM.from_pretrained(
        found(family).name,
        dtype=getattr(torch, dtype.value),
        quantization_config=configs[method],
        device_map={"": "cpu"},
    )
    for module in stock.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # would round the constants of the weights
            module.support_avx512bf16_for_cpu = False
    assert torch.equal(logits(load(found(family), method, dtype=dtype)), logits(stock.eval()))


def test_experts_are_quantized_too(found: Find, load: Load) -> None:
    block: Any = load(found("mixtral"), "nf4").base_model.layers[3]
    packed = block.mlp.experts.parametrizations.gate_up_proj.original
    assert (packed.dtype, packed.numel()) == (torch.uint8, 4 * 256 * 64 // 2)
    assert block.mlp.gate.weight.dtype == torch.bfloat16
    stock: Any = AutoModelForCausalLM.from_pretrained(found("mixtral").name, dtype=torch.bfloat16)
    for name in ("gate_up_proj", "down_proj"):
        exact = getattr(stock.base_model.layers[3].mlp.experts, name).float()
        error = (getattr(block.mlp.experts, name).float() - exact).norm() / exact.norm()
        assert 0.05 < error < 0.12  # NF4 of normal weights: 0.09


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(placement=placements(), kind=st.sampled_from(KINDS))
def test_answers_are_the_same_whatever_the_placement(
    found: Find, load: Load, tokens: Tensor, placement: Placement, kind: tuple[str, str]
) -> None:
    family, method = kind
    if family == "qwen2":  # the head is the embedding
        placement = Placement(placement.embedding, placement.blocks, placement.streamed, placement.embedding)
    mask = torch.ones_like(tokens)
    answers = []
    for model in (load(found(family), method), load(found(family), method, placement)):
        stock = model.generate(tokens, attention_mask=mask, max_new_tokens=6, do_sample=False)
        shared = None
        if family != "gemma2":
            # one lane: int8 looks for outliers in all rows of a step together
            decoder = SharedPrefixDecoder(model, tokens[0].tolist(), chunk_tokens=4, lanes=1)
            suffixes = [[50, 51, 52], [60], [70, 71]]
            rule = StopRule(NoText(), [], [])
            shared = generate(
                decoder, suffixes, ["a", "b", "c"], rule, max_new_tokens=5, sampling=Sampling(2)
            )
        answers.append((stock.tolist(), shared))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
def test_a_block_waits_in_one_flat_buffer_and_computes_from_one_of_two(
    found: Find, load: Load, logits: Logits, method: str
) -> None:
    model = load(found("llama"), method, Placement(0, (0,) * BLOCKS, (0, 1, 2, 4), 0))
    (conveyor,) = vars(model)["_probegrid_conveyors"].values()
    block: nn.Module = model.base_model.layers[2]
    parked = conveyor._blocks[2]
    assert len(conveyor.buffers) == BUFFERS
    assert all(buffer.nbytes == parked.nbytes for buffer in conveyor.buffers)
    used = []

    def look(module: nn.Module, arguments: Any) -> None:
        (buffer,) = [
            buffer for buffer in conveyor.buffers if all(lies_in(part, buffer) for part in tensors_of(block))
        ]
        used.append(buffer.data_ptr())

    block.register_forward_pre_hook(look)
    logits(model)
    logits(model)
    assert len(used) == 2
    assert all(lies_in(tensor, parked.buffer) for tensor in tensors_of(block))
    held = sum(
        tensor.nbytes for tensor in {tensor.data_ptr(): tensor for tensor in tensors_of(block)}.values()
    )
    assert parked.nbytes < held + 256 * len(list(tensors_of(block)))


@pytest.mark.parametrize(("streamed", "turns"), [(1, 1), (2, 2), (3, 3), (5, 5)])
def test_a_pass_copies_each_block_once_and_the_next_ones_ahead(
    found: Find, load: Load, logits: Logits, streamed: int, turns: int
) -> None:
    model = load(found("llama"), "nf4", Placement(0, (0,) * BLOCKS, tuple(range(streamed)), 0))
    size = vars(model)["_probegrid_conveyors"][0]._blocks[0].nbytes
    copied = []
    for _ in range(3):
        logits(model)
        copied.append(streamed_bytes(model)[0] // size)
    if streamed <= BUFFERS:  # all of them stay
        assert copied[0] == copied[2] <= BUFFERS
    else:
        assert copied == [turns + BUFFERS, 2 * turns + BUFFERS, 3 * turns + BUFFERS]


def test_a_pass_that_was_broken_off_spoils_nothing(found: Find, load: Load, logits: Logits) -> None:
    expected = logits(load(found("llama"), "nf4"))
    model = load(found("llama"), "nf4", STREAMED)
    for broken in range(BLOCKS):

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        handle = model.base_model.layers[broken].self_attn.register_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            logits(model)
        handle.remove()
        assert torch.equal(logits(model), expected)


def test_any_order_of_turns_is_served() -> None:
    blocks = [nn.Linear(3, 3) for _ in range(4)]
    expected = [block.weight.detach().clone() for block in blocks]
    conveyor = Conveyor([ParkedBlock(block) for block in blocks], torch.device("cpu"))
    for index in (0, 1, 2, 3, 0, 1, 3, 2, 2, 0):
        conveyor.acquire(index)
        assert torch.equal(blocks[index].weight, expected[index])
        conveyor.release(index)


@pytest.mark.parametrize("nbytes", [1, 4095, 4096, 10**6 + 1])
def test_page_locked_memory_is_exactly_as_large_as_asked(nbytes: int) -> None:
    buffer = page_locked(nbytes)
    buffer.fill_(7)
    assert (buffer.numel(), buffer.dtype) == (nbytes, torch.uint8)
