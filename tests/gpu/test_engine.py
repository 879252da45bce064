"""The engine's CUDA paths against stock transformers, on random models of real head sizes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from probegrid.inference.direct import compute_directly
from probegrid.inference.generation import Generation, Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.models.fusing import fuse

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PREFIX = list(range(5, 305))
SUFFIXES = [
    [(7 * row + slot) % 900 + 10 for slot in range(length)]
    for row, length in enumerate((1, 3, 17, 40, 64, 65))
]


class NoText:
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return ""


def random_llama(dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1024, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
        head_dim=128, vocab_size=1000, max_position_embeddings=2048, initializer_range=0.05,
    )  # fmt: skip
    return LlamaForCausalLM(config).to("cuda", dtype).eval()


def teacher_forced(model: PreTrainedModel, tokens: list[int], count: int) -> Tensor:
    """Logits of the last ``count`` positions, by the model's own attention."""
    model.set_attn_implementation("sdpa")
    ids = torch.tensor([tokens], device="cuda")
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -count:].float()


@pytest.mark.parametrize("chunk_tokens", [4096, 100])
def test_bf16_logits_are_as_near_to_fp32_as_stock_attention_s(chunk_tokens: int) -> None:
    model = random_llama(torch.bfloat16)
    steps = [[11] * len(SUFFIXES), [400] * len(SUFFIXES)]
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=chunk_tokens)
    ours = [decoder.prefill(SUFFIXES, room=4), *(decoder.step(tokens) for tokens in steps)]
    decoder.keep([4, 2, 2])
    kept = decoder.step([12, 13, 14])
    rows = [
        PREFIX + suffix + [tokens[0] for tokens in steps[:count]]
        for count, suffix in itertools.product(range(3), SUFFIXES)
    ]
    rows += [PREFIX + SUFFIXES[row] + [11, 400, token] for row, token in ((4, 12), (2, 13), (2, 14))]
    stock = torch.stack([teacher_forced(model, row, 1)[0] for row in rows])
    exact_model = random_llama(torch.float32)
    exact = torch.stack([teacher_forced(exact_model, row, 1)[0] for row in rows])
    found = torch.cat([*ours, kept]).float()
    error, stock_error = (found - exact).norm() / exact.norm(), (stock - exact).norm() / exact.norm()
    assert error < 1.2 * stock_error + 1e-4, (float(error), float(stock_error))


def test_fp32_answers_equal_stock_generate_s() -> None:
    model = random_llama(torch.float32)
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=128)
    rule = StopRule(NoText(), [], [])
    answers = generate(decoder, SUFFIXES, [""] * 6, rule, max_new_tokens=12, sampling=Sampling(2))
    for suffix, found in zip(SUFFIXES, answers, strict=True):
        greedy = found[0]
        logits = teacher_forced(model, PREFIX + suffix + list(greedy.token_ids[:-1]), 12)
        assert tuple(logits.argmax(-1).tolist()) == greedy.token_ids
        for answer in found:
            forced = teacher_forced(model, PREFIX + suffix + list(answer.token_ids[:-1]), 12).log_softmax(-1)
            picked = forced[torch.arange(12), torch.tensor(answer.token_ids)].cpu()
            assert abs(sum(answer.token_logprobs) - float(picked.sum())) < 1e-4 * 12


def test_the_prefix_takes_the_same_memory_at_every_batch_size() -> None:
    model = random_llama(torch.bfloat16)
    sizes = set()
    for rows in (1, 6, 48):
        decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=4096)
        decoder.prefill((SUFFIXES * 8)[:rows], room=4)
        sizes.add(decoder.prefix_bytes)
    assert sizes == {2 * 4 * len(PREFIX) * 2 * 128 * 2}


def test_running_out_of_memory_halves_the_batch_and_goes_on() -> None:
    from probegrid.inference.engine import Engine
    from probegrid.models.load import LoadedModel
    from probegrid.schema import DecodingConfig

    model = random_llama(torch.bfloat16)
    room = 200 * 2**20
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)
    try:
        engine = Engine(
            LoadedModel(model, 0.0),
            _Tokenizer(),
            PREFIX,
            DecodingConfig(max_new_tokens=4),
            [],
            suffixes=SUFFIXES,
        )
        many = SUFFIXES * 400
        assert engine.answer(many, [""] * len(many)) is None
        found = engine.answer(SUFFIXES, [""] * 6)
        assert found is not None
        assert len(found) == 6
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class _Tokenizer(NoText):
    eos_token_id = None


def test_a_fused_model_is_as_near_to_fp32() -> None:
    model = random_llama(torch.bfloat16)
    decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=4096)
    plain = decoder.prefill(SUFFIXES, room=4).float()
    assert fuse(model)
    fused = SharedPrefixDecoder(model, PREFIX, chunk_tokens=4096).prefill(SUFFIXES, room=4).float()
    tokens = [PREFIX + suffix for suffix in SUFFIXES]
    exact = torch.cat([teacher_forced(model.float(), row, 1) for row in tokens])
    assert float((fused - exact).norm()) < 1.2 * float((plain - exact).norm())


def test_blocks_that_call_their_kernels_give_what_their_modules_give() -> None:
    model = random_llama(torch.bfloat16)
    assert fuse(model)
    assert not any("forward" in vars(block) for block in model.model.layers)
    rule, keys = StopRule(NoText(), [], []), [f"question {row}" for row in range(len(SUFFIXES))]

    def answers() -> list[list[Generation]]:
        decoder = SharedPrefixDecoder(model, PREFIX, chunk_tokens=100)
        return generate(decoder, SUFFIXES, keys, rule, max_new_tokens=12, sampling=Sampling(2))

    directly = answers()
    assert compute_directly(model)
    listens = [block.mlp.register_forward_hook(lambda *_: None) for block in model.model.layers]
    by_modules = answers()
    for hook in listens:
        hook.remove()
    assert directly == by_modules == answers()


def test_groups_of_rows_record_their_first_step_where_kernels_are_loaded() -> None:
    model = random_llama(torch.bfloat16)
    rule, keys = StopRule(NoText(), [], []), [f"question {row}" for row in range(len(SUFFIXES))]
    alone, grouped = (SharedPrefixDecoder(model, PREFIX, chunk_tokens=4096, lanes=lanes) for lanes in (1, 2))
    wanted = [
        answers
        for half in (slice(0, 3), slice(3, 6))
        for answers in generate(
            alone, SUFFIXES[half], keys[half], rule, max_new_tokens=12, sampling=Sampling(1)
        )
    ]
    steps: list[int] = []
    real = SharedPrefixDecoder.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            SharedPrefixDecoder,
            "step",
            lambda self, tokens: (steps.append(len(tokens)), real(self, tokens))[1],
        )
        found = generate(grouped, SUFFIXES, keys, rule, max_new_tokens=12, sampling=Sampling(1))
    assert steps == [6]  # of the first group alone
    assert found == wanted
