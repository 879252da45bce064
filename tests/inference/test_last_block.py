"""The last block computes no token whose logits nobody asked for, and every logit is what it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from probegrid.inference.shared_prefix import SharedPrefixDecoder

PREFIX, ROWS = [5, 6, 7, 8], [[9, 10, 11], [12], [13, 14]]


@pytest.mark.parametrize("chunk_tokens", [4, 6, 64])
@pytest.mark.parametrize(
    ("family", "spares"), [("llama", True), ("qwen2", True), ("mistral", True), ("gemma2", False)]
)
def test_tokens_of_the_last_block(
    checkpoint: Callable[[str], Path], family: str, spares: bool, chunk_tokens: int
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(family), dtype=torch.float32).eval()
    grown = [[*row, token] for row, token in zip(ROWS, (20, 21, 22), strict=True)]
    with torch.inference_mode():
        stock, stock_grown = (
            torch.stack([model(torch.tensor([PREFIX + row])).logits[0, -1] for row in rows])
            for rows in (ROWS, grown)
        )
    computed: list[list[int]] = [[], []]
    for block, counts in zip(model.model.layers[-2:], computed, strict=True):
        block.mlp.register_forward_pre_hook(lambda _, args, counts=counts: counts.append(args[0].shape[1]))
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(decoder.prefill(ROWS, room=2), stock, atol=1e-5, rtol=1e-5)
    tokens = len(PREFIX) + sum(map(len, ROWS))
    assert sum(computed[0]) == tokens
    passes_of_prefix = 1 if chunk_tokens < 2 * len(PREFIX) else 0
    assert sum(computed[1]) == (len(ROWS) + passes_of_prefix if spares else tokens)
    torch.testing.assert_close(decoder.step([20, 21, 22]), stock_grown, atol=1e-5, rtol=1e-5)


def test_a_prefix_whose_pass_ran_out_of_memory_is_read_alone(checkpoint: Callable[[str], Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32).eval()
    whole = SharedPrefixDecoder(model, PREFIX, chunk_tokens=64).prefill(ROWS, room=2)
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=64)
    tokens: list[int] = []

    def run_out(_: object, args: tuple[torch.Tensor]) -> None:
        tokens.append(args[0].shape[1])
        if args[0].shape[1] > len(PREFIX) + 4:
            raise torch.OutOfMemoryError

    model.model.layers[0].mlp.register_forward_pre_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError):
        decoder.prefill(ROWS, room=2)
    decoder.reset()
    halves = [decoder.prefill(rows, room=2) for rows in (ROWS[:2], ROWS[2:])]
    torch.testing.assert_close(torch.cat(halves), whole, atol=1e-5, rtol=1e-5)
    assert tokens == [10, 4, 4, 2]
