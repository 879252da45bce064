"""Every decoder that transformers builds answers and is probed as its own forward pass of one row has it, in float32.

The reference is a stock forward pass of each whole row, one row at a time and no cache: the logits before each token of
its answer, and the hidden states that the full model returns.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from probegrid.errors import CheckpointError
from probegrid.inference.engine import Engine
from probegrid.inference.mixers import mixers
from probegrid.inference.residual import ResidualReader, Row, Rows, prefix_of
from probegrid.inference.residual_trial import rows_that_agree
from probegrid.models.blocks import decoder_blocks
from probegrid.models.load import LoadedModel
from probegrid.schema import DecodingConfig

torch.set_num_threads(1)

SHARED = (
    "cohere2", "deepseek_v2", "deepseek_v3", "diffllama", "falcon_h1", "gemma", "gemma2", "gemma3_text", "gemma3n_text",
    "gemma4_text", "glm4", "glm4_moe", "gpt2", "gpt_neox", "gpt_oss", "granite", "granitemoehybrid", "kimi_linear",
    "lfm2", "llama", "mistral", "mixtral", "nemotron_h", "olmo2", "olmo3", "opt", "phi", "phi3", "qwen2", "qwen3",
    "qwen3_5_text", "qwen3_moe", "qwen3_next", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
"""Families that people run, which must share the prefix: no slower way will do."""
AFTER_EACH_BLOCK = {"falcon_mamba", "mamba", "mamba2", "rwkv"}
"""Families whose list of hidden states begins behind the first block."""
NO_LAYERS = {"hrm_text"}
"""Its blocks are gone through in turns, so that no layer of the stream has a number."""
SEEDS = {"hy_v4": 1}
"""Where rounding would make an indexer choose other keys: with seed 0 one of 28 tokens is off by 2.5 nats."""
LOOSE = {"nemotron_h": 2e-3}
"""Nats where a family is not well conditioned."""
LOOSE_STATES = {"qwen3_5_text": 3e-3, "qwen3_next": 3e-3}
"""By how much float32 is apart from float64 in the hidden states of such small random ones themselves."""
MOST = 7
_GENERATOR = torch.Generator().manual_seed(3)


def tokens(count: int) -> list[int]:
    return torch.randint(3, zoo.VOCABULARY, (count,), generator=_GENERATOR).tolist()


PREFIX = [1, *tokens(29)]
SUFFIXES = [tokens(5), tokens(9), tokens(5), tokens(23)]
"""Longer together than any window, and two of a length."""
SAMPLES = [tokens(3), [7], tokens(6)]
SAMPLES.append([*SAMPLES[0], 9])
FAMILIES = [
    pytest.param(family, marks=[pytest.mark.zoo] if family in SHARED else [pytest.mark.zoo, pytest.mark.slow])
    for family in zoo.text_families()
]


class NoText:
    eos_token_id = None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "x"


@functools.cache
def stock_of(family: str) -> Any:
    """The model that only its own code touches."""
    model = zoo.build(zoo.config_of(family), SEEDS.get(family, 0))
    model.config.get_text_config().eos_token_id = None
    model.generation_config.eos_token_id = None
    return model


def forward(model: Any, row: Sequence[int], **asked: Any) -> Any:
    ids = torch.tensor([list(row)])
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **asked)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_models_own_forward_pass(family: str) -> None:
    stock = stock_of(family)
    ours = copy.deepcopy(stock)
    engine = Engine(
        LoadedModel(ours, 0.0),
        NoText(),  # type: ignore[arg-type]
        PREFIX,
        DecodingConfig(max_new_tokens=MOST),
        (),
        suffixes=SUFFIXES,
    )
    answers = engine.answer(SUFFIXES, [str(index) for index in range(len(SUFFIXES))])
    assert answers is not None
    if family in SHARED:
        assert engine.report.used == "shared prefix"
    for suffix, (answer,) in zip(SUFFIXES, answers, strict=True):
        asked = [*PREFIX, *suffix]
        logits = forward(stock, [*asked, *answer.token_ids]).logits[0, len(asked) - 1 : -1]
        found = zip(answer.token_ids, answer.token_logprobs, logits.double().log_softmax(-1), strict=True)
        for token, logprob, wanted in found:
            rounding = LOOSE.get(family, 2e-4)
            assert float(wanted.max() - wanted[token]) < rounding  # the likeliest, or as likely
            assert abs(float(wanted[token]) - logprob) < rounding


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_the_hidden_states_of_the_full_model(family: str) -> None:
    stock = stock_of(family)
    ours = copy.deepcopy(stock)
    if family in NO_LAYERS:
        with pytest.raises(CheckpointError, match="reads a model block by block"):
            decoder_blocks(ours)
        return
    rows = [[*PREFIX, *suffix, *sample] for suffix in SUFFIXES for sample in SAMPLES]
    spans = [[(len(row) - 1, len(row)), (21, 33)] for row in rows]
    layers = list(range(len(decoder_blocks(ours))))
    passages = list(map(Row, rows, spans))
    _, way = rows_that_agree(ours, layers, passages)
    if family in SHARED and not mixers(ours):
        assert way is Rows.shared
    ahead = prefix_of(passages) if way is Rows.shared else []
    assert len(ahead) in (0, 21)
    found = ResidualReader(ours, layers, way, ahead, pass_tokens=8).read(rows, spans, torch.float32)
    wanted: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for row, of_row in zip(rows, spans, strict=True):
        states = [
            one_wide(state)
            for state in forward(stock.base_model, row, output_hidden_states=True).hidden_states
        ]
        for layer in layers:
            place = layer - 1 if family in AFTER_EACH_BLOCK else layer
            wanted[layer] += [states[place][start:end].mean(0) for start, end in of_row]
    for layer in layers[1:] if family in AFTER_EACH_BLOCK else layers:
        rounding = LOOSE_STATES.get(family, 2e-4)
        torch.testing.assert_close(found[layer], torch.stack(wanted[layer]), rtol=2e-4, atol=rounding)


def one_wide(state: Tensor) -> Tensor:
    """[T, d] of one row, of whatever streams a family has."""
    if state.dim() == 3:
        return state[0]
    return (state[0] if state.shape[0] == 1 else state[:, 0].transpose(0, 1)).flatten(1)
