"""Blocks that add while they multiply compute what they computed before; blocks of other code are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.fusing import _add_within_products, fuse


@pytest.mark.parametrize(
    ("family", "changed"), [("llama", True), ("qwen2", True), ("mistral", True), ("gemma2", False)]
)
def test_blocks_that_add_while_they_multiply(
    checkpoint: Callable[[str], Path], family: str, changed: bool
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(family), dtype=torch.float32).eval()
    tokens = torch.arange(12).view(2, 6)

    def logits() -> tuple[Tensor, Tensor]:
        decoder = SharedPrefixDecoder(model, [5, 6, 7], chunk_tokens=16)
        return decoder.prefill([[8, 9], [10, 11, 12]], room=1), decoder.step([3, 4])

    before = logits()
    for block in model.model.layers:
        _add_within_products(block)
        assert ("forward" in vars(block)) is changed
    torch.testing.assert_close(logits(), before, atol=1e-5, rtol=1e-5)
    model.set_attn_implementation("eager")
    with torch.inference_mode():  # anybody else's pass is the model's own, and may be kept
        states = model(tokens, output_hidden_states=True).hidden_states
        own = AutoModelForCausalLM.from_pretrained(checkpoint(family), dtype=torch.float32)
        own.set_attn_implementation("eager")
        torch.testing.assert_close(states, own(tokens, output_hidden_states=True).hidden_states)


def test_a_model_on_the_cpu_is_left_alone(checkpoint: Callable[[str], Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32)
    assert not fuse(model)
    assert not any("forward" in vars(module) for module in model.modules())
