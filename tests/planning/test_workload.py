"""Tokens from prompts."""

from __future__ import annotations

from probegrid.planning.workload import TOKEN_ESTIMATES, TokenEstimate, activation_workload, question_workload
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
