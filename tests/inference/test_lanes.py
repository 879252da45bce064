"""Rows in several lanes, as a model on several devices takes them, answer as in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from probegrid.inference.generation import Generation, Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule

PREFIX = list(range(5, 35))
SUFFIXES = [[40 + (7 * row + slot) % 50 for slot in range(1 + 3 * row)] for row in range(5)]


class Numbers:
    """Decodes a token to its number, so that an answer may end anywhere."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, token_ids))


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32).eval()


def answers(model: PreTrainedModel, lanes: int, count: int) -> list[list[Generation]]:
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=16, lanes=lanes)
    rule = StopRule(Numbers(), ["7"], [])
    keys = [f"question {row}" for row in range(5)]
    batches = [(SUFFIXES, keys), (SUFFIXES[:2], keys[:2])]
    found = [generate(decoder, *batch, rule, max_new_tokens=9, sampling=Sampling(count)) for batch in batches]
    return [*found[0], *found[1]]


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("lanes", [2, 3, 8])
def test_lanes_change_no_answer(model: PreTrainedModel, lanes: int, count: int) -> None:
    one, several = answers(model, 1, count), answers(model, lanes, count)
    assert len({each.steps for found in one for each in found}) > 2
    for wanted, found in zip(one, several, strict=True):
        for a, b in zip(wanted, found, strict=True):
            assert (a.token_ids, a.text, a.ended) == (b.token_ids, b.text, b.ended)
            assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-5)


def test_lanes_read_their_prefix_once_with_the_first_rows(model: PreTrainedModel) -> None:
    tokens: list[int] = []
    hook = model.model.layers[0].register_forward_pre_hook(
        lambda _, args, named: tokens.append((args or (named["hidden_states"],))[0].shape[1]),
        with_kwargs=True,
    )
    rule, keys = StopRule(Numbers(), [], []), [f"question {row}" for row in range(5)]
    found = []
    try:
        for lanes in (2, 1):
            decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=2 * len(PREFIX), lanes=lanes)
            found.append(generate(decoder, SUFFIXES, keys, rule, max_new_tokens=2, sampling=Sampling()))
    finally:
        hook.remove()
    assert tokens[:4] == [len(PREFIX) + 1 + 4, 7 + 10 + 13, 2, 3]  # two groups' prompts, then a step of each
    in_two, in_one = ([one.token_ids for (one,) in each] for each in found)
    assert in_two == in_one
