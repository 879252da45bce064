"""The reading *distributions*: equal to plain forward passes with eager attention, stored, resumed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from probegrid.inference.token_steps import watched_layers
from probegrid.models.load import LoadedModel
from probegrid.progress import Progress
from probegrid.readings.token_steps import StepReading, read_steps

DRAW = torch.Generator().manual_seed(2)


def tokens(count: int) -> tuple[int, ...]:
    return tuple(torch.randint(10, 500, (count,), generator=DRAW).tolist())


SHARED = tokens(20)
PROMPTS = [SHARED + tokens(3 + row) for row in range(6)]
ANSWERS = [tokens(length) for length in (4, 1, 0, 7, 2, 4)]


class Reader:
    def __init__(self, folder: Path, store: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.stock = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.store, self.opened = store, 0

    def open_model(self) -> LoadedModel:
        self.opened += 1
        return LoadedModel(self.model, load_s=0.0)

    def read(self, count: int = len(PROMPTS), batch_size: str = "auto") -> StepReading:
        with Progress(Console(file=io.StringIO())) as progress:
            return read_steps(
                PROMPTS[:count],
                ANSWERS[:count],
                batch_size=batch_size,
                description={"model": "random"},
                store_dir=str(self.store),
                tokenizer=self.tokenizer,
                open_model=self.open_model,
                progress=progress,
            )


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral_sliding", "gemma2"])
@pytest.mark.parametrize("batch_size", ["auto", "2"])
def test_they_are_those_of_a_plain_forward_pass(
    name: str, batch_size: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    reader = Reader(checkpoint(name), tmp_path)
    reading = reader.read(batch_size=batch_size)
    assert reading.has_attention is (name in ("llama", "qwen2"))
    for prompt, answer, found in zip(PROMPTS, ANSWERS, reading.steps, strict=True):
        with torch.inference_mode():
            output = reader.stock(torch.tensor([prompt + answer]), output_attentions=True)
        start, length = len(prompt), max(1, len(answer))
        logprobs = output.logits[0, start - 1 : start - 1 + length].log_softmax(-1).double()
        assert found.entropies == pytest.approx((-(logprobs.exp() * logprobs).sum(-1)).numpy(), abs=1e-4)
        uniform = -logprobs.mean(-1) - math.log(logprobs.shape[-1])
        assert found.divergences == pytest.approx(uniform.numpy(), abs=1e-4)
        top = logprobs.topk(10)
        assert found.top_logprobs == pytest.approx(top.values.numpy(), abs=1e-4)
        assert (found.top_ids == top.indices.numpy()).mean() > 0.9  # but for near ties
        assert found.vocabulary == logprobs.shape[-1]
        if not found.layers:
            assert not reading.has_attention
            continue
        layers = torch.stack(output.attentions)[:, 0].double()  # [layers, heads, T, T]
        assert found.layers == watched_layers(len(layers)) == (0, 1)
        places = list(range(start, start + length - 1))
        own = layers[:, :, places, places].numpy()  # what writes a token reads the one before it
        chosen = np.stack(
            [of[of.mean(-1).argmax()] if length > 1 else of[0] for of in own[list(found.layers)]]
        )
        assert found.attention == pytest.approx(chosen, abs=1e-5)
        assert found.middle_attention == pytest.approx(np.log(own[1] + 1e-12).mean(0), abs=1e-3)


def test_the_middle_third_of_the_blocks_is_watched() -> None:
    assert watched_layers(30) == tuple(range(10, 21))
    assert watched_layers(32) == tuple(range(10, 23))
    assert watched_layers(1) == (0,)
    assert all(blocks // 2 in watched_layers(blocks) for blocks in range(1, 100))


def test_what_is_stored_is_not_read_again(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    reader = Reader(checkpoint("llama"), tmp_path)
    few = reader.read(3)
    whole = reader.read()
    again = reader.read()
    assert reader.opened == 2
    for one, other in zip(whole.steps, again.steps, strict=True):
        assert all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(vars(one).values(), vars(other).values(), strict=True)
        )
    assert np.array_equal(few.steps[2].attention, whole.steps[2].attention)
    assert whole.read_s > few.read_s > 0
    assert again.found_s == pytest.approx(again.read_s)
