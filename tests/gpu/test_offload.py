"""On a GPU: blocks streamed from page-locked memory compute what they compute where they lie, pass after pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.dispatch import streamed_bytes
from probegrid.models.load_by_parts import load_placed
from probegrid.models.offload import page_locked
from probegrid.planning.placement import Device, Placement
from probegrid.schema import ModelConfig, QuantizationMethod

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

BLOCKS = 7
LAST = torch.cuda.device_count() - 1
"""Another GPU where there are two."""
PREFIX = list(range(5, 300))
SUFFIXES = [list(range(10, 10 + length)) for length in (3, 40, 1, 17)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=BLOCKS,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    target = tmp_path_factory.mktemp("llama")
    model.save_pretrained(target)
    return target


def load(folder: Path, method: str, placement: Placement) -> PreTrainedModel:
    config = ModelConfig(path=str(folder))
    return load_placed(
        find_checkpoint(config), config, QuantizationMethod(method), placement, keep_in=folder / "store"
    ).model


def read(model: PreTrainedModel, passes: int) -> torch.Tensor:
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=128)
    logits = [decoder.prefill(SUFFIXES, room=passes)]
    logits += [decoder.step([7 + step] * len(SUFFIXES)) for step in range(passes)]
    return torch.stack(logits).cpu()


@pytest.mark.parametrize("embedding", [0, "cpu"])
@pytest.mark.parametrize("streamed", [(0, 1, 2, 3, 4, 5, 6), (1, 3, 5), (2,), (0, 4, 6)])
@pytest.mark.parametrize("method", ["none", "int8", "nf4"])
def test_streamed_blocks_change_no_bit(
    folder: Path, method: str, streamed: tuple[int, ...], embedding: Device
) -> None:
    expected = read(load(folder, method, Placement(0, (0,) * BLOCKS, (), 0)), 12)
    devices = tuple(LAST if block % 2 else 0 for block in range(BLOCKS))
    model = load(folder, method, Placement(embedding, devices, streamed, LAST))
    assert torch.equal(read(model, 12), expected)
    assert all(block.buffer.is_pinned() for block in parked(model))


def parked(model: PreTrainedModel) -> list:
    return [block for conveyor in vars(model)["_probegrid_conveyors"].values() for block in conveyor._blocks]


def test_only_two_blocks_are_on_the_gpu(folder: Path) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(0)
    model = load(folder, "nf4", Placement("cpu", (0,) * BLOCKS, tuple(range(BLOCKS)), 0))
    block = parked(model)[0].nbytes
    others = 2048 * 2048 * 2 + 2048 * 2 + 10**6  # head, final norm, tables
    assert torch.cuda.memory_allocated(0) - before < 2 * block + others
    read(model, 2)
    assert streamed_bytes(model)[0] >= 5 * BLOCKS * block


def test_page_locked_memory_is_copied_from_at_full_speed() -> None:
    source = page_locked(10**9)
    target = torch.empty(10**9, dtype=torch.uint8, device="cuda")
    assert source.is_pinned()
    target.copy_(source, non_blocking=True)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    target.copy_(source, non_blocking=True)
    end.record()
    end.synchronize()
    assert 1e9 / (start.elapsed_time(end) / 1e3) > 8e9  # PCIe 3 x16 at the least
