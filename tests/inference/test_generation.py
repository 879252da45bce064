"""Generated answers against an independent loop over stock ``generate``: one prompt at a time, raw logits, float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import zoo
from scipy.stats import chisquare
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from probegrid.data import facts
from probegrid.embedded import checkpoint_dir
from probegrid.inference.generation import Decoder, Generation, Sampling, generate
from probegrid.inference.padded import PaddedDecoder
from probegrid.inference.shared_prefix import SharedPrefixDecoder, obstacle
from probegrid.inference.stopping import StopRule
from probegrid.readings.prompts import build_prompts, choose_shots, shared_prefix
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import PromptConfig

MOST = 24
STOPS = PromptConfig().stop
GREEDY = Sampling()
RANDOM = ("llama", "qwen2", "mistral", "mistral_sliding", "gemma2")
needs_tiny = pytest.mark.skipif(
    not (checkpoint_dir() / "config.json").exists(), reason="the embedded model is not trained yet"
)
MODELS = [pytest.param("tiny", marks=needs_tiny), *RANDOM]


@dataclass(frozen=True)
class Subject:
    """A checkpoint loaded twice: one model for our decoders, one that only stock code touches."""

    model: PreTrainedModel
    stock: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def rule(self) -> StopRule:
        return StopRule(self.tokenizer, STOPS, [self.tokenizer.eos_token_id])


@pytest.fixture(scope="module")
def subject(checkpoint: Callable[[str], Path]) -> Callable[[str], Subject]:
    """Load a checkpoint by its name, once."""

    @functools.cache
    def load(name: str) -> Subject:
        folder = checkpoint_dir() if name == "tiny" else checkpoint(name)
        models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for _ in range(2)]
        return Subject(*models, AutoTokenizer.from_pretrained(folder))

    return load


def prompts_for(subject: Subject, n: int = 11, chat_template: str | None = None) -> list[tuple[int, ...]]:
    """Few-shot prompts of the embedded questions, as token ids."""
    data = facts.load(facts.FactsConfig(num_samples=n))
    config = PromptConfig(num_few_shot=3)
    template = ChatTemplate(subject.tokenizer, chat_template)
    built = build_prompts(data.questions, choose_shots(data, config), config, template)
    return [prompt.token_ids for prompt in built]


def answer(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    *,
    decoder: Decoder | None = None,
    prefix_length: int | None = None,
    batch_size: int = 4,
    most: int = MOST,
    sampling: Sampling = GREEDY,
) -> list[list[Generation]]:
    """Answer in batches behind the prefix, with a decoder that shares it unless another is given."""
    length = shared_prefix(prompts) if prefix_length is None else prefix_length
    decoder = decoder or SharedPrefixDecoder(subject.model, prompts[0][:length], chunk_tokens=4096)
    answers = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        keys = [f"question {start + index}" for index in range(len(batch))]
        suffixes = [prompt[length:] for prompt in batch]
        answers += generate(decoder, suffixes, keys, subject.rule, max_new_tokens=most, sampling=sampling)
    return answers


@dataclass(frozen=True)
class Expected:
    """What stock ``generate`` answers: the tokens before the stop, and their log-probabilities."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def stock_answer(subject: Subject, prompt: Sequence[int], most: int = MOST) -> Expected:
    settings = GenerationConfig(
        max_new_tokens=most,
        min_new_tokens=0,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        typical_p=1.0,
        epsilon_cutoff=0.0,
        eta_cutoff=0.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        renormalize_logits=False,
        eos_token_id=subject.tokenizer.eos_token_id,
        pad_token_id=subject.tokenizer.pad_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        made = subject.stock.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    tokens = made.sequences[0, len(prompt) :].tolist()
    logprobs = torch.stack(made.logits)[:, 0].double().log_softmax(-1)
    kept = count_before_stop(subject.tokenizer, tokens)
    return Expected(tuple(tokens[:kept]), tuple(logprobs[step, tokens[step]].item() for step in range(kept)))


def count_before_stop(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> int:
    """Count the tokens before the one that completes a stop; with these tokenizers a newline is a token of its own."""
    for count, token in enumerate(tokens):
        text = tokenizer.decode(tokens[: count + 1]).lstrip()
        if token == tokenizer.eos_token_id or any(stop in text for stop in STOPS):
            return count
    return len(tokens)


def assert_parity(
    subject: Subject, prompts: Sequence[Sequence[int]], answers: list[list[Generation]]
) -> None:
    for prompt, (found,) in zip(prompts, answers, strict=True):
        wanted = stock_answer(subject, prompt)
        assert found.token_ids == wanted.token_ids
        assert abs(sum(found.token_logprobs) - sum(wanted.logprobs)) < 1e-4
        assert found.token_logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
        assert found.text == subject.tokenizer.decode(wanted.token_ids, skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def answers_of(subject: Callable[[str], Subject]) -> Callable[[str, str | None], list[list[Generation]]]:
    """A model's answers to eleven prompts under a template, made once: three rows are left over."""

    @functools.cache
    def make(name: str, chat_template: str | None) -> list[list[Generation]]:
        tested = subject(name)
        assert obstacle(tested.model) is None
        return answer(tested, prompts_for(tested, 11, chat_template), batch_size=4)

    return make


@pytest.mark.parametrize("chat_template", [None, "default"], ids=["plain", "chat"])
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_stock_generate(
    subject: Callable[[str], Subject],
    answers_of: Callable[[str, str | None], list[list[Generation]]],
    name: str,
    chat_template: str | None,
) -> None:
    prompts = prompts_for(subject(name), 11, chat_template)
    assert_parity(subject(name), prompts, answers_of(name, chat_template))


@pytest.mark.slow
def test_the_random_models_stop_early_and_never(
    answers_of: Callable[[str, str | None], list[list[Generation]]],
) -> None:
    """Without this the parity above would say less than it seems to."""
    lengths = {
        found.steps
        for name in RANDOM
        for chat_template in (None, "default")
        for (found,) in answers_of(name, chat_template)
    }
    assert {2, MOST} <= lengths
    assert len(lengths) > 6


@pytest.mark.parametrize("chunk_tokens", [1, 7, 32])
def test_prefix_and_rows_may_be_read_in_chunks(subject: Callable[[str], Subject], chunk_tokens: int) -> None:
    tested = subject("llama")
    prompts = prompts_for(tested, 5)
    decoder = SharedPrefixDecoder(
        tested.model, prompts[0][: shared_prefix(prompts)], chunk_tokens=chunk_tokens
    )
    assert_parity(tested, prompts, answer(tested, prompts, decoder=decoder, batch_size=5))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_any_part_of_what_is_shared_may_be_the_prefix(
    subject: Callable[[str], Subject], share: float
) -> None:
    tested = subject("qwen2")
    prompts = prompts_for(tested, 4)
    length = int(share * shared_prefix(prompts))
    assert_parity(tested, prompts, answer(tested, prompts, prefix_length=length))


def test_one_prompt_may_be_the_beginning_of_another(subject: Callable[[str], Subject]) -> None:
    tested = subject("mistral")
    longest = prompts_for(tested, 1)[0]
    prompts = [longest[:20], longest, longest[:21], longest[:20]]
    assert shared_prefix(prompts) == 19
    assert_parity(tested, prompts, answer(tested, prompts))


@pytest.mark.parametrize("name", ["gemma2", "mistral_sliding"])
def test_padded_batches_answer_as_stock_generate(subject: Callable[[str], Subject], name: str) -> None:
    tested = subject(name)
    prompts = [prompt[: len(prompt) - 2 * index] for index, prompt in enumerate(prompts_for(tested, 7))]
    length = min(shared_prefix(prompts), 30)
    decoder = PaddedDecoder(tested.model, prompts[0][:length])
    assert_parity(
        tested, prompts, answer(tested, prompts, decoder=decoder, prefix_length=length, batch_size=3)
    )


def test_models_that_cannot_share_a_prefix_say_why() -> None:
    assert (
        obstacle(zoo.build(zoo.config_of("bloom")))
        == "bloom attends by code of its own, not through transformers' interface"
    )


def test_samples_are_the_same_whatever_the_batch(subject: Callable[[str], Subject]) -> None:
    tested = subject("llama")
    prompts = prompts_for(tested, 6)
    sampling = Sampling(count=3, temperature=0.8, seed=5)
    together = answer(tested, prompts, batch_size=6, sampling=sampling)
    for index, prompt in enumerate(prompts):
        decoder = SharedPrefixDecoder(tested.model, prompt[:10], chunk_tokens=4096)
        key = f"question {index}"
        alone = generate(decoder, [prompt[10:]], [key], tested.rule, max_new_tokens=MOST, sampling=sampling)
        assert [found.token_ids for found in alone[0]] == [found.token_ids for found in together[index]]


def test_another_seed_draws_other_samples_and_leaves_the_greedy_answer(
    subject: Callable[[str], Subject],
) -> None:
    tested = subject("llama")
    prompts = prompts_for(tested, 3)
    one, other = (answer(tested, prompts, sampling=Sampling(count=2, seed=seed)) for seed in (0, 1))
    assert [found[0].token_ids for found in one] == [found[0].token_ids for found in other]
    assert [found[1].token_ids for found in one] != [found[1].token_ids for found in other]
    assert_parity(tested, prompts, [[found[0]] for found in one])


def test_log_probabilities_of_samples_are_at_temperature_one(subject: Callable[[str], Subject]) -> None:
    tested = subject("qwen2")
    prompts = prompts_for(tested, 2)
    for prompt, found in zip(
        prompts, answer(tested, prompts, sampling=Sampling(count=4, temperature=1.7)), strict=True
    ):
        for sample in found:
            tokens = torch.tensor([[*prompt, *sample.token_ids]])
            with torch.inference_mode():
                logits = tested.stock(tokens).logits[0, len(prompt) - 1 : -1].double()
            forced = logits.log_softmax(-1).gather(-1, tokens[0, len(prompt) :, None]).squeeze(-1)
            assert sample.token_logprobs == pytest.approx(forced.tolist(), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_samples_are_drawn_as_often_as_they_are_likely(
    subject: Callable[[str], Subject], temperature: float
) -> None:
    tested, draws = subject("llama"), 3000
    prompt = prompts_for(tested, 1)[0]
    with torch.inference_mode():
        logits = tested.stock(torch.tensor([prompt])).logits[0, -1].double()
    wanted = (logits / temperature).softmax(-1) * draws
    sampling = Sampling(count=draws, temperature=temperature)
    decoder = SharedPrefixDecoder(tested.model, prompt[:-1], chunk_tokens=4096)
    rule = StopRule(tested.tokenizer, [], [], count_stop=True)  # nothing is left out of the answer
    (found,) = generate(decoder, [prompt[-1:]], ["key"], rule, max_new_tokens=1, sampling=sampling)
    tokens = torch.tensor([sample.token_ids[0] for sample in found[1:]])
    drawn = torch.bincount(tokens, minlength=len(wanted)).double()
    often = wanted >= 10
    assert often.sum() > 5
    bins = [torch.cat([part[often], part[~often].sum().unsqueeze(0)]) for part in (drawn, wanted)]
    assert chisquare(bins[0], bins[1]).pvalue > 1e-3


def test_the_entropy_of_the_first_token_is_that_of_the_raw_logits(subject: Callable[[str], Subject]) -> None:
    tested = subject("mistral")
    prompts = prompts_for(tested, 3)
    for prompt, (found,) in zip(prompts, answer(tested, prompts), strict=True):
        with torch.inference_mode():
            logits = tested.stock(torch.tensor([prompt])).logits[0, -1]
        wanted = torch.distributions.Categorical(logits=logits.double()).entropy().item()
        assert found.first_entropy == pytest.approx(wanted, abs=1e-4)


def test_the_prefix_takes_the_same_bytes_at_every_batch_size(subject: Callable[[str], Subject]) -> None:
    tested = subject("llama")
    prompts = prompts_for(tested, 8)
    length = shared_prefix(prompts)
    sizes = set()
    for batch_size in (1, 3, 8):
        decoder = SharedPrefixDecoder(tested.model, prompts[0][:length], chunk_tokens=4096)
        answer(tested, prompts, decoder=decoder, batch_size=batch_size)
        sizes.add(decoder.prefix_bytes)
    layers, key_and_value, kv_heads, width, float32 = 2, 2, 2, 8, 4
    assert sizes == {length * layers * key_and_value * kv_heads * width * float32}


class Counting(SharedPrefixDecoder):
    """Writes down how many rows each step computes."""

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        self.stepped = [*getattr(self, "stepped", []), len(tokens)]
        return super().step(tokens)


def test_finished_rows_leave_the_batch(subject: Callable[[str], Subject]) -> None:
    tested = subject("llama")
    prompts = prompts_for(tested, 40)
    decoder = Counting(tested.model, prompts[0][: shared_prefix(prompts)], chunk_tokens=4096)
    answers = answer(tested, prompts, decoder=decoder, batch_size=40)
    for step, rows in enumerate(decoder.stepped, start=1):
        unfinished = sum(found.steps > step for (found,) in answers)
        assert unfinished <= rows < unfinished + max(1, rows // 8)  # they leave in groups of an eighth
    assert sum(decoder.stepped) < 0.8 * len(prompts) * len(decoder.stepped)
