"""The session checks itself: what reads a model wrongly makes way for what reads it right, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel

from probegrid.errors import RunError
from probegrid.inference import attention, engine, residual, trial
from probegrid.inference.engine import Engine
from probegrid.inference.packed import give_back_attention
from probegrid.inference.plain import logits_from_one_prefix, plain_logits
from probegrid.inference.residual import ResidualReader, Row, Rows, prefix_of
from probegrid.inference.residual_trial import rows_that_agree
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.load import LoadedModel
from probegrid.schema import DecodingConfig

torch.set_num_threads(1)

PREFIX = [1, *range(20, 40)]
SUFFIXES = [[41, 42, 43], [50, 51, 52, 53, 54, 55, 56, 57, 58], [60, 61, 62, 63]]


class NoText:
    eos_token_id = None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "x"


def opened(model: Any, suffixes: Sequence[Sequence[int]] = SUFFIXES, **decoding: Any) -> Engine:
    settings = DecodingConfig(**{"max_new_tokens": 7, **decoding})
    return Engine(LoadedModel(model, 0.0), NoText(), PREFIX, settings, (), suffixes=suffixes)  # type: ignore[arg-type]


class Forgetful(SharedPrefixDecoder):
    """Takes its steps as if there were no prefix."""

    def step(self, tokens: Sequence[int] | Tensor) -> Tensor:
        held, self.prefix.pairs = self.prefix.pairs, {}
        logits = super().step(tokens)
        self.prefix.pairs = held
        return logits


def test_a_decoder_that_is_wrong_in_its_steps_alone_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.build(zoo.config_of("llama"))
    right = opened(model)
    wanted = right.answer(SUFFIXES, ["a", "b", "c"])
    monkeypatch.setattr(engine, "SharedPrefixDecoder", Forgetful)
    found = opened(zoo.build(zoo.config_of("llama")))
    assert (right.report.used, found.report.used) == ("shared prefix", "padded batches")
    assert "nats from the model's own forward pass" in found.report.passed_over["shared prefix"]
    answers = found.answer(SUFFIXES, ["a", "b", "c"])
    assert answers is not None
    assert wanted is not None
    assert [one.token_ids for (one,) in answers] == [one.token_ids for (one,) in wanted]


def test_a_decoder_that_is_wrong_about_its_shortest_row_alone_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hasty(SharedPrefixDecoder):
        def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> Tensor:
            logits = super().prefill(suffixes, room=room)
            shortest = min(range(len(suffixes)), key=lambda row: len(suffixes[row]))
            logits[shortest] *= 1.01
            return logits

    monkeypatch.setattr(engine, "SharedPrefixDecoder", Hasty)
    monkeypatch.setattr(trial, "SharedPrefixDecoder", Hasty)
    assert opened(zoo.build(zoo.config_of("llama"))).report.used == "padded batches"


def tokens_of_blocks(model: Any) -> list[int]:
    """What the blocks of a model compute from now on, a number a pass."""
    passes: list[int] = []
    model.model.layers[0].mlp.register_forward_pre_hook(
        lambda _, args: passes.append(args[0].shape[0] * args[0].shape[1])
    )
    return passes


def test_the_prefix_is_computed_once_to_try_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = {}
    for shares in (True, False):
        if not shares:
            monkeypatch.setattr(trial, "logits_from_one_prefix", lambda *_: None)
        model = zoo.build(zoo.config_of("llama"))
        passes = tokens_of_blocks(model)
        report = opened(model, do_sample=True, num_generations=3).report
        assert (report.used, report.prompts) == ("shared prefix", 2)
        spent[shares] = sum(passes)
    rows = 4  # a greedy answer and a sample of two prompts
    assert spent[False] - spent[True] == (rows - 1) * len(PREFIX)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "deepseek_v3", "mistral", "olmo3", "gpt2"])
def test_rows_that_go_on_from_one_prefix_are_those_of_the_plain_pass(family: str) -> None:
    model = zoo.build(zoo.config_of(family))
    rows = [([*PREFIX, *suffix], 2) for suffix in SUFFIXES]
    found = logits_from_one_prefix(model, len(PREFIX), rows)
    assert found is not None
    for (row, last), logits in zip(rows, found, strict=True):
        torch.testing.assert_close(logits, plain_logits(model, row, last), rtol=1e-4, atol=1e-4)


def test_samples_are_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixes(SharedPrefixDecoder):
        def keep(self, rows: Sequence[int]) -> None:
            super().keep(list(reversed(rows)) if len(rows) > len(set(rows)) else rows)

    monkeypatch.setattr(engine, "SharedPrefixDecoder", Mixes)
    model = zoo.build(zoo.config_of("llama"))
    assert opened(model).report.used == "shared prefix"
    sampled = opened(model, do_sample=True, num_generations=3)
    assert sampled.report.used == "padded batches"


@pytest.mark.parametrize("family", ["mamba", "rwkv"])
def test_what_padding_would_change_is_read_one_by_one(family: str) -> None:
    found = opened(zoo.build(zoo.config_of(family)))
    assert found.report.used == "one by one"
    assert list(found.report.passed_over) == ["shared prefix", "padded batches"]


def test_a_family_whose_own_cache_changes_its_answers_is_read_without() -> None:
    assert opened(zoo.build(zoo.config_of("zamba2"))).report.used == "one by one without a cache"


def test_what_was_found_is_known_to_the_next_reading_of_no_longer_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = zoo.build(zoo.config_of("bloom"))
    first = opened(model)
    monkeypatch.setattr(engine.Trial, "of", lambda *_, **__: pytest.fail("tried again"))
    again = opened(model, SUFFIXES[:2])
    assert again.report == first.report
    assert again.report.used == "padded batches"
    with pytest.raises(pytest.fail.Exception):
        opened(model, [[*SUFFIXES[1], 70]])


def test_a_report_is_one_sentence_and_plain_values() -> None:
    report = opened(zoo.build(zoo.config_of("bloom"))).report
    assert report.as_dict()["used"] == "padded batches"
    assert report.as_dict()["prompts"] == 2
    assert 0 <= report.distance < report.allowed
    assert report.sentence().startswith("padded batches: within")
    assert report.sentence().endswith(
        "not shared prefix: bloom attends by code of its own, not through transformers' interface"
    )


@pytest.mark.parametrize(
    ("family", "way", "reason"),
    [
        ("axk2", "shared prefix", "its AXK2Attention needs an attention mask, which rows that are packed into one"),
        ("deepseek_v4", "shared prefix", "its DeepseekV4Attention attends to other keys than one of each token"),
        ("minimax", "padded batches", "its MiniMaxModel does not take rows of a padded batch with the cache that"),
        ("openai-gpt", "padded batches", "its Attention does not take rows of a padded batch with the cache that"),
    ],
)  # fmt: skip
def test_what_a_models_code_does_not_take_is_said_in_words(family: str, way: str, reason: str) -> None:
    found = opened(zoo.build(zoo.config_of(family))).report.passed_over[way]
    assert found.startswith(reason)
    assert "Error" not in found


def test_what_the_machine_says_is_not_taken_for_the_models(caplog: pytest.LogCaptureFixture) -> None:
    model = zoo.build(zoo.config_of("llama"))

    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    model.model.layers[0].mlp.register_forward_pre_hook(fail)
    said = r"shared prefix: its LlamaMLP does not take rows .*: CUDA error: no kernel image is available;"
    with caplog.at_level("DEBUG"), pytest.raises(RunError, match=said):
        opened(model)
    assert "in fail" in caplog.text


def encoder() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=128, initializer_range=0.3,
    )  # fmt: skip
    return BertLMHeadModel(config).eval()


def test_a_model_that_sees_what_follows_is_refused() -> None:
    with pytest.raises(RunError, match=r"change with the tokens that follow: it is no causal language model"):
        opened(encoder())


def test_a_model_in_int8_whose_passes_never_agree_is_not_called_an_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place in (engine, trial):
        monkeypatch.setattr(place, "rounds_together", lambda _: True)
    monkeypatch.setattr(trial, "_CAUSAL_TOGETHER", trial.ROUNDING[torch.float32])
    monkeypatch.setattr(trial, "_MOST_TOGETHER", trial.ROUNDING[torch.float32])
    with pytest.raises(
        RunError, match=r"^in int8 .* by more than rounding: .*quantization=nf4 \(shared prefix: "
    ):
        opened(encoder())


def test_activations_that_depend_on_the_batch_are_read_one_by_one() -> None:
    model = encoder()
    rows = [[1, *range(30, 41)], [1, 50, 51, 52]]
    spans = [[(3, 4)], [(2, 4)]]
    report, way = rows_that_agree(model, [0, 1, 2], list(map(Row, rows, spans)))
    assert way is Rows.alone
    assert "of its length" in report.passed_over["padded batches"]
    found = ResidualReader(model, [0, 1, 2], way).read(rows, spans, torch.float32)
    for place, (row, ((start, end),)) in enumerate(zip(rows, spans, strict=True)):
        stream = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
        for layer in (0, 1, 2):
            wanted = stream[layer][0, start:end].mean(0)
            torch.testing.assert_close(found[layer][place], wanted, rtol=1e-4, atol=1e-5)


ASKED = [[*PREFIX, *question, *sample] for question in SUFFIXES for sample in ([70], [71, 72], [73, 74, 75])]


def activations_of(model: Any) -> tuple[Any, Any]:
    spans = [[(len(row) - 1, len(row))] for row in ASKED]
    passages = list(map(Row, ASKED, spans))
    report, way = rows_that_agree(model, [1, 2], passages)
    ahead = prefix_of(passages) if way is Rows.shared else []
    return report, ResidualReader(model, [1, 2], way, ahead).read(ASKED, spans, torch.float32)


@pytest.mark.parametrize("wrong", ["prefix", "question", "sample"])
def test_activations_whose_rows_see_what_is_not_theirs_share_no_prefix(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    model = zoo.build(zoo.config_of("llama"))
    report, expected = activations_of(model)
    assert (report.used, report.prompts) == ("shared prefix", 3)
    attend = attention.attend_forest

    def mistaken(query: Tensor, own: Any, forest: Any, prefix: Any, *how: Any, **named: Any) -> Tensor:
        if wrong == "prefix":
            prefix = tuple(part[:-1] for part in prefix)
        elif wrong == "question":  # every tree sees the one before it
            forest = replace(forest, end=torch.full_like(forest.end, len(forest.end)), root=(0,) * len(query))
        else:  # a sample sees those before it
            ends = [max(end for end, other in zip(forest.end.tolist(), forest.root, strict=True) if other == root)
                    for root in forest.root]  # fmt: skip
            forest = replace(forest, end=torch.tensor(ends))
        return attend(query, own, forest, prefix, *how, **named)

    monkeypatch.setattr(residual, "attend_forest", mistaken)
    report, found = activations_of(model)
    assert report.used == "padded batches"
    assert "of its length from what the model gives for a row alone" in report.passed_over["shared prefix"]
    for layer, values in expected.items():
        torch.testing.assert_close(found[layer], values, rtol=1e-4, atol=1e-5)


def test_the_models_own_attention_is_back_where_the_model_is_read_otherwise() -> None:
    model = zoo.build(zoo.config_of("gpt_oss"))
    opened(model)
    give_back_attention(model)
    assert model.config._attn_implementation == "eager"
