"""Blocks that call their kernels themselves compute what their modules compute; others stay as they are."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as everybody calls it
import zoo
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from probegrid.inference import direct
from probegrid.inference.direct import Kernels, compute_directly, let_blocks_call
from probegrid.inference.shared_prefix import SharedPrefixDecoder

PREFIX, ROWS = [5, 6, 7, 8], [[9, 10, 11], [12], [13, 14]]


def norm(module: Any, values: Tensor) -> Tensor:
    return F.rms_norm(values, module.weight.shape, module.weight, module.variance_epsilon)


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    return apply_rotary_pos_emb(query, key, cos, sin, unsqueeze_dim=2)


PLAIN = Kernels(
    norm,
    lambda module, values, others: (norm(module, values + others), values + others),
    rotate,
    lambda first, second: F.silu(first) * second,
)


@pytest.fixture(autouse=True)
def _kernels_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Liger, of which this is asked else, is where CUDA is alone."""
    monkeypatch.setattr(direct, "kernels_stand_for", lambda block: True)


def random_model(family: str) -> PreTrainedModel:
    model: PreTrainedModel = zoo.build(zoo.config_of(family)).eval()
    return model


def read(model: PreTrainedModel, chunk_tokens: int) -> list[Tensor]:
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=chunk_tokens)
    return [decoder.prefill(ROWS, room=2), decoder.step([20, 21, 22]), decoder.step([1, 2, 3])]


@pytest.mark.parametrize("chunk_tokens", [4, 64])
@pytest.mark.parametrize("family", ["llama", "ministral", "mistral", "qwen2", "qwen3"])
def test_logits_are_those_of_the_modules(
    family: str, chunk_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(family)
    by_modules = read(model, chunk_tokens)
    assert let_blocks_call(model, PLAIN)
    directly = read(model, chunk_tokens)
    monkeypatch.setattr(type(model.model.layers[0].mlp), "forward", None)  # nothing asks the modules now
    torch.testing.assert_close(read(model, chunk_tokens), directly, atol=0, rtol=0)
    torch.testing.assert_close(directly, by_modules, atol=2e-5, rtol=2e-5)


def test_who_attends_by_the_model_s_own_code_asks_its_modules() -> None:
    model, tokens = random_model("llama"), torch.tensor([PREFIX + ROWS[0]])
    with torch.inference_mode():
        wanted = model(tokens, use_cache=False).logits
    never = Kernels(*[pytest.fail] * 4)
    assert let_blocks_call(model, never)
    with torch.inference_mode():
        assert torch.equal(model(tokens, use_cache=False).logits, wanted)
        cached = model(tokens[:, :3], use_cache=True).past_key_values
        torch.testing.assert_close(model(tokens[:, 3:], past_key_values=cached).logits, wanted[:, 3:])


def test_who_listens_to_a_module_hears_it() -> None:
    model = random_model("llama")
    assert let_blocks_call(model, PLAIN)
    heard: list[Tensor] = []
    hook = model.model.layers[1].mlp.register_forward_hook(lambda _, args, output: heard.append(output))
    with_ear = read(model, 64)
    assert len(heard) == 3
    hook.remove()
    torch.testing.assert_close(read(model, 64), with_ear, atol=2e-5, rtol=2e-5)
    assert len(heard) == 3


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "olmo2"])
def test_other_families_keep_their_code(family: str) -> None:
    model = random_model(family)
    assert not let_blocks_call(model, PLAIN)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_that_nothing_has_fused_keeps_its_modules() -> None:
    model = random_model("llama")
    assert not compute_directly(model)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("of_block", [True, False])
def test_a_block_whose_forward_pass_was_replaced_keeps_it(of_block: bool) -> None:
    model = random_model("llama")
    block = model.model.layers[1]
    replaced = block if of_block else block.self_attn
    replaced.forward = partial(type(replaced).forward, replaced)  # as accelerate does
    assert not let_blocks_call(model, PLAIN)
    assert "forward" not in vars(model.model.layers[0])
