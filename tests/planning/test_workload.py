"""Tokens from prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probegrid.planning.workload import (
    TOKEN_ESTIMATES,
    TokenEstimate,
    activation_workload,
    longest_of_passes,
    pass_tokens,
    question_workload,
)
from probegrid.schema import DecodingConfig, PromptConfig


def test_shots_are_the_shared_prefix() -> None:
    none = question_workload(400, PromptConfig(num_few_shot=0), DecodingConfig())
    five = question_workload(400, PromptConfig(num_few_shot=5), DecodingConfig())
    assert five.prompt_tokens == none.prompt_tokens
    assert none.prefix_tokens < five.prefix_tokens < none.prefix_tokens + 5 * 40


def test_five_shot_squad_has_the_length_that_was_measured() -> None:
    workload = question_workload(
        400, PromptConfig(use_context=True), DecodingConfig(), TOKEN_ESTIMATES["squad"]
    )
    assert abs(workload.prefix_tokens - 900) < 100
    assert abs(workload.prompt_tokens - 195) < 20


def test_samples_come_beside_the_greedy_answer() -> None:
    decoding = DecodingConfig(do_sample=True, num_generations=10, batch_size="16")
    workload = question_workload(400, PromptConfig(), decoding)
    assert workload.generations == 11
    assert workload.batch_size == 16


def test_repeated_instruction_counts_in_every_block() -> None:
    once = question_workload(1, PromptConfig(), DecodingConfig())
    always = question_workload(1, PromptConfig(brief_always=True), DecodingConfig())
    assert always.prompt_tokens > once.prompt_tokens
    assert always.prefix_tokens > once.prefix_tokens


def test_activations_generate_nothing() -> None:
    workload = activation_workload(500, 22, TokenEstimate(conversation=350))
    assert (workload.deepest_layer, workload.prompt_tokens, workload.generates) == (22, 350, False)


@pytest.mark.parametrize(("stages", "abreast"), [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4)])
@given(
    tokens=st.integers(1, 60_000),
    less=st.floats(0, 1),
    most=st.sampled_from([1024, 4096, 16384]),
    longest=st.integers(1, 400),
)
def test_no_batch_has_longer_passes_than_were_planned(
    stages: int, abreast: int, tokens: int, less: float, most: int, longest: int
) -> None:
    shape = {"stages": stages, "abreast": abreast, "longest": longest}
    found = longest_of_passes(tokens, most, **shape)
    assert pass_tokens(max(1, round(less * tokens)), most, **shape) <= found <= most
