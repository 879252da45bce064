"""A model spread over GPUs answers bit for bit as on one, its steps recorded as graphs on each of them."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from probegrid.inference.generation import Generation, Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.models.dispatch import dispatch
from probegrid.models.fusing import fuse
from probegrid.planning.placement import Placement

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
PREFIX = list(range(5, 305))
SUFFIXES = [[(7 * row + slot) % 900 + 10 for slot in range(3 + 11 * row)] for row in range(12)]
BLOCKS = 6
GPUS = torch.cuda.device_count()


class NoText:
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return ""


def model_on(devices: tuple[int, ...], dtype: torch.dtype, head: int) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1024, num_hidden_layers=BLOCKS, num_attention_heads=8,
        num_key_value_heads=2, head_dim=64, vocab_size=1000, max_position_embeddings=2048, initializer_range=0.05,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype).eval()
    placement = Placement(devices[0], devices, (), head)
    model.model.embed_tokens.to(f"cuda:{devices[0]}")
    model.model.rotary_emb.to(f"cuda:{devices[0]}")
    for block, device in zip(model.model.layers, devices, strict=True):
        block.to(f"cuda:{device}")
    model.model.norm.to(f"cuda:{placement.final_norm}")
    model.lm_head.to(f"cuda:{head}")
    dispatch(model, placement, {})
    return model


def answers(model: PreTrainedModel, lanes: int | None, count: int) -> tuple[list[list[Generation]], bool]:
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=100, lanes=lanes)
    keys = [f"question {row}" for row in range(len(SUFFIXES))]
    rule = StopRule(NoText(), [], [])
    found = []
    for _ in range(2):  # the second batch takes its steps by the graphs of the first
        found += generate(decoder, SUFFIXES, keys, rule, max_new_tokens=24, sampling=Sampling(count))
    return found, all(lane._rows._graph is not None for lane in decoder.lanes(len(SUFFIXES)))


@pytest.mark.parametrize("head", [0, GPUS - 1])
@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gpus", sorted({2, GPUS}))
def test_several_gpus_answer_as_one(dtype: torch.dtype, count: int, head: int, gpus: int) -> None:
    one = model_on((0,) * BLOCKS, dtype, 0)
    several = model_on(tuple(gpus * block // BLOCKS for block in range(BLOCKS)), dtype, min(head, gpus - 1))
    assert SharedPrefixDecoder(several, PREFIX, chunk_tokens=100).n_lanes == gpus
    if dtype is torch.bfloat16:
        fuse(one), fuse(several)
    wanted, recorded = answers(one, gpus, count)
    found, also_recorded = answers(several, None, count)
    assert found == wanted
    assert found[: len(SUFFIXES)] == found[len(SUFFIXES) :]
    assert recorded == also_recorded == (dtype is torch.bfloat16)
