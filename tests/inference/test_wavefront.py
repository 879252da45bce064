"""Passes that take the blocks side by side answer as one after another, share a block's copy, and end together."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from probegrid.inference.engine import Engine
from probegrid.inference.generation import Generation, Sampling, generate
from probegrid.inference.linear import fast_linear
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.inference.wavefront import abreast
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.dispatch import streamed_bytes
from probegrid.models.load import LoadedModel
from probegrid.models.load_by_parts import load_placed
from probegrid.planning.placement import Placement
from probegrid.schema import DecodingConfig, Dtype, ModelConfig, QuantizationMethod

BLOCKS = 7
IN_TURN = Placement(0, (0, 1, 2, 0, 1, 2, 0), (0, 3, 4, 6), 2)
ONE = Placement(0, (0,) * BLOCKS, (), 0)
PREFIX = list(range(5, 25))
SUFFIXES = [[10 + (7 * row + slot) % 50 for slot in range(1 + 3 * row)] for row in range(9)]
CHUNK = 40
WAVE = [turn - place for turn in range(BLOCKS + 2) for place in range(3) if 0 <= turn - place < BLOCKS]
"""The blocks as three passes take them: each in the turn behind the one before it, so that no device waits."""

Load = Callable[[Placement], PreTrainedModel]


class Numbers:
    """Decodes a token to its number, so that an answer may end anywhere."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, token_ids))


class NoText(Numbers):
    """Nothing ends an answer."""

    eos_token_id = None

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "x"


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=BLOCKS, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)

    def load_it(placement: Placement) -> PreTrainedModel:
        of_folder = ModelConfig(path=str(folder), dtype=Dtype.float32)
        return load_placed(
            find_checkpoint(of_folder), of_folder, QuantizationMethod.none, placement, keep_in=None
        ).model

    return load_it


def answers(decoder: SharedPrefixDecoder, count: int = 2) -> list[list[Generation]]:
    rule, keys = StopRule(Numbers(), ["7"], []), [f"question {row}" for row in range(len(SUFFIXES))]
    return generate(decoder, SUFFIXES, keys, rule, max_new_tokens=6, sampling=Sampling(count))


def check_equal(found: list[list[Generation]], wanted: list[list[Generation]]) -> None:
    for question, other in zip(found, wanted, strict=True):
        for a, b in zip(question, other, strict=True):
            assert (a.token_ids, a.text, a.ended) == (b.token_ids, b.text, b.ended)
            assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-5)


def passes_at_blocks(model: PreTrainedModel) -> tuple[list[int], list[int]]:
    """The blocks, as passes of more than a token a row take them, and those that take a step."""
    reading: list[int] = []
    stepping: list[int] = []
    for index, block in enumerate(model.base_model.layers):

        def note(module: nn.Module, arguments: Any, index: int = index) -> None:
            (reading if arguments[0].shape[1] > len(SUFFIXES) else stepping).append(index)

        block.register_forward_pre_hook(note)
    return reading, stepping


@pytest.mark.parametrize("prefix", [PREFIX, PREFIX * 3, []])  # read with the first rows, alone, not there
def test_passes_abreast_answer_as_one_after_another(load: Load, prefix: list[int]) -> None:
    one = SharedPrefixDecoder(load(ONE), prefix, chunk_tokens=CHUNK)
    model = load(IN_TURN)
    several = SharedPrefixDecoder(model, prefix, chunk_tokens=CHUNK)
    assert (one.n_abreast, several.n_abreast) == (1, 3)
    reading, _ = passes_at_blocks(model)
    for _ in range(2):
        check_equal(answers(several), answers(one))
    wave = [block for block in WAVE if block < BLOCKS - 1]  # the last computes the last tokens alone
    at = next(place for place in range(len(reading)) if reading[place:][:6] == wave[:6])
    assert reading[at:][: len(wave)] == wave


def test_a_streamed_block_is_copied_once_for_all_passes_abreast(load: Load) -> None:
    model = load(IN_TURN)
    decoder = SharedPrefixDecoder(model, [], chunk_tokens=CHUNK)
    reading, stepping = passes_at_blocks(model)
    before = streamed_bytes(model)
    answers(decoder, count=0)
    passes = Counter(reading)[0]
    assert passes > 3
    turns = -(-passes // 3) + Counter(stepping)[0]
    conveyor = vars(model)["_probegrid_conveyors"][0]  # has three blocks for two buffers
    size = conveyor._blocks[0].nbytes
    assert (streamed_bytes(model)[0] - before[0]) / size == 3 * turns + 2


@pytest.mark.parametrize("count", [0, 2])
def test_lanes_abreast_step_as_one(load: Load, count: int) -> None:
    wanted = answers(SharedPrefixDecoder(load(ONE), PREFIX, chunk_tokens=CHUNK), count)
    model = load(IN_TURN)
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=CHUNK, lanes=3)
    check_equal(answers(decoder, count), wanted)
    _, stepping = passes_at_blocks(model)
    check_equal(answers(decoder, count), wanted)
    if count == 0:
        first = stepping.index(1) - 1  # the last block of a prompt's pass has few tokens too
        assert stepping[first:][: len(WAVE)] == WAVE


def test_layers_that_carry_states_are_read_and_stepped_a_lane_at_a_time() -> None:
    model = zoo.build(zoo.config_of("qwen3_next"))
    vars(model)["_probegrid_placement"] = IN_TURN
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=CHUNK, lanes=3)
    assert (decoder.n_abreast, decoder.n_lanes) == (1, 1)


def test_a_session_tries_passes_abreast_and_believes_them(load: Load) -> None:
    engine = Engine(
        LoadedModel(load(IN_TURN), 0.0),
        NoText(),
        PREFIX,
        DecodingConfig(max_new_tokens=6),
        (),
        suffixes=SUFFIXES,
    )  # type: ignore[arg-type]
    assert engine.report.used == "shared prefix"
    assert engine.report.prompts == 2
    assert engine._decoder.n_abreast == 3


@pytest.mark.parametrize("broken", range(BLOCKS))
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_a_pass_that_fails_ends_all_and_spoils_nothing(
    load: Load, broken: int, error: type[BaseException]
) -> None:
    model = load(IN_TURN)
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=CHUNK)
    wanted = answers(decoder)
    calls = iter(range(100))

    def stop(*_: Any) -> None:
        if next(calls) == 1:  # of the second pass
            raise error

    handle = model.base_model.layers[broken].self_attn.register_forward_pre_hook(stop)
    with pytest.raises(error):
        answers(decoder)
    handle.remove()
    assert not any(block._forward_hooks for block in model.base_model.layers[1:3])
    decoder.reset()
    check_equal(answers(decoder), wanted)


def test_an_interruption_ends_all_where_they_are(load: Load) -> None:
    model = load(IN_TURN)
    taken: list[int] = []

    def interrupt(*_: Any) -> None:
        taken.append(3)
        if len(taken) == 2:  # the second pass: the first has given way, the third has not come so far
            signal.raise_signal(signal.SIGINT)

    model.base_model.layers[3].register_forward_pre_hook(interrupt)
    tokens = torch.arange(8).unsqueeze(0)
    with pytest.raises(KeyboardInterrupt):
        abreast(model, [lambda: model(input_ids=tokens)] * 3)
    assert taken == [3, 3]
    assert not torch.is_inference_mode_enabled()


def test_layers_are_torchs_own_again_behind_passes_that_end_in_another_order(load: Load) -> None:
    model = load(IN_TURN)
    forward = nn.Linear.forward
    with fast_linear(model), fast_linear(model):
        pass
    answers(SharedPrefixDecoder(model, PREFIX, chunk_tokens=CHUNK))
    assert nn.Linear.forward is forward
