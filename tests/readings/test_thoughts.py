"""Answers behind thoughts, by real models: against stock generation token by token, and in everything a cell leaves."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tests.chat_models import save_chain
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from probegrid.cell.run import Result
from probegrid.data.example import Question
from probegrid.errors import ConfigError
from probegrid.models.load import LoadedModel
from probegrid.progress import Progress
from probegrid.readings.answers import AnswerReading, Stops, read_answers
from probegrid.readings.prompts import Prompt
from probegrid.readings.spans import Position, answer_passages
from probegrid.readings.thinking import HARMONY, KNOWN, Marks, begun_in, marks_of, open_in
from probegrid.readings.thoughts import ThinkingReader
from probegrid.schema import DecodingConfig, ThinkingConfig

Run = Callable[..., Result]
Once = Callable[[str, Callable[[Path], object]], Path]
FACTS = ("dataset=facts", "dataset.num_samples=6", "prompt.num_few_shot=1", "model.dtype=float32")
STOPS = ("\n", "\n\n", "Question:", "Context:")


def chain(once: Once, name: str, template: str, *chains: Sequence[str]) -> tuple[str, ...]:
    """The overrides of a model that says what is chained."""
    folder = once(f"chain-{name}", lambda into: save_chain(into, template, *chains))
    return ("model=custom", f"model.path={folder}", *FACTS)


@pytest.fixture
def thinker(once: Once) -> tuple[str, ...]:
    """Its prompt begins a thought, which holds stops (a new line) and ends, and the answer ends with its turn."""
    said = ("\n", " because", " also", "Question:", " then", "</think>", " horn", "</turn>", " never")
    return (*chain(once, "thinker", "thinker", said), "model.chat_template=default")


@pytest.fixture
def self_starter(once: Once) -> tuple[str, ...]:
    """Begins its thought itself, in plain text (its prompts end in ``Answer:``)."""
    said = ("Answer:", "<think>", "\n", " because", "</think>", " horn", "Context:")
    return chain(once, "self_starter", "llama", said)


@pytest.fixture
def endless(once: Once) -> tuple[str, ...]:
    """Never ends its thought."""
    said = ("\n", " because", " also", " because")
    return (*chain(once, "endless", "thinker", said), "model.chat_template=default")


@pytest.fixture
def channels(once: Once) -> tuple[str, ...]:
    """Answers in the final channel at once, and ends as channels end."""
    said = ("nt", "<|channel|>", "f", "in", "al", "<|message|>", " horn", "<|end|>")
    return (*chain(once, "channels", "harmony", said), "model.chat_template=default")


@pytest.fixture
def thoughtless(once: Once) -> tuple[str, ...]:
    """Ends its thought at once."""
    said = ("\n", "</think>", " horn", "</turn>")
    return (*chain(once, "thoughtless", "thinker", said), "model.chat_template=default")


def test_an_answer_behind_a_thought_that_the_prompt_begins(run: Run, thinker: tuple[str, ...]) -> None:
    result = run(*thinker)
    answers = result.tables["answers"]
    assert list(answers.answer) == ["horn"] * 6
    assert list(answers.thinking) == ["because alsoQuestion: then"] * 6  # no stop counts inside it
    assert list(answers.n_thinking_tokens) == [5] * 6
    assert list(answers.ended) == ["eos"] * 6  # by the template's end of turn, which nothing else names
    assert list(answers.n_tokens) == [1] * 6
    assert result.metrics["n_thoughts"] == 6
    assert result.metrics["n_thinking_tokens_mean"] == 5
    assert "the chat template begins a thought" in result.notes["examples"]
    assert "6 of 6 answers are the same ('horn')" in result.notes["answers"]


def test_a_thought_that_the_model_begins_itself(run: Run, self_starter: tuple[str, ...]) -> None:
    answers = run(*self_starter).tables["answers"]
    assert list(answers.answer) == ["horn"] * 6
    assert list(answers.thinking) == ["because"] * 6
    assert list(answers.ended) == ["stop"] * 6


def test_the_final_channel_is_the_answer(run: Run, channels: tuple[str, ...]) -> None:
    answers = run(*channels).tables["answers"]
    assert list(answers.answer) == ["horn"] * 6
    assert list(answers.thinking) == [""] * 6
    assert list(answers.ended) == ["eos"] * 6


def test_a_thought_without_a_word_is_one(run: Run, thoughtless: tuple[str, ...]) -> None:
    answers = run(*thoughtless).tables["answers"]
    assert list(answers.answer) == ["horn"] * 6
    assert list(answers.thinking) == [""] * 6


def test_a_thought_that_does_not_end_is_no_answer(run: Run, endless: tuple[str, ...]) -> None:
    result = run(*endless, "decoding.max_thinking_tokens=9", "dataset.rule=contains")
    answers, scores = result.tables["answers"], result.tables["scores"]
    assert list(answers.answer) == [""] * 6
    assert list(answers.ended) == ["length"] * 6
    assert list(answers.n_thinking_tokens) == [9] * 6
    assert not answers.correct.any()
    assert scores.score.isna().all()
    assert result.metrics["n_without_answer"] == result.metrics["n_unscored"] == 6
    assert result.metrics["accuracy"] == 0
    assert (
        "6 of 6 thoughts have no end: 6 were cut at decoding.max_thinking_tokens" in result.notes["answers"]
    )


def test_an_empty_answer_may_be_right_and_a_lost_one_never_is(
    run: Run, endless: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "unanswerable.jsonl"
    file.write_text("".join(f'{{"question": "What is {n}?", "answers": []}}\n' for n in range(5)))
    own = (f"dataset.path={file}", "prompt.num_few_shot=0", "decoding.max_thinking_tokens=4")
    result = run(
        *[each for each in endless if each not in FACTS], "model.dtype=float32", "dataset=jsonl", *own
    )
    assert not result.tables["answers"].correct.any()


def test_a_context_that_cannot_hold_the_thought(
    run: Run, endless: tuple[str, ...], self_starter: tuple[str, ...]
) -> None:
    for model in (
        endless,
        self_starter,
    ):  # refused before anything is read; and once the model began to think
        with pytest.raises(ConfigError, match=r"its thought may take 2000 .* the model's context is 2048"):
            run(*model, "decoding.max_thinking_tokens=2000")


@pytest.mark.slow
def test_samples_have_thoughts_of_their_own(run: Run, thinker: tuple[str, ...]) -> None:
    result = run(*thinker, "decoding=sample", "decoding.num_generations=3", "probe=p_true")
    samples = result.tables["samples"]
    assert len(samples) == 18
    assert {"thinking", "n_thinking_tokens"} <= set(samples.columns)
    thought = samples[samples.n_tokens > 0]
    assert len(thought)
    again = run(*thinker, "decoding=sample", "decoding.num_generations=3", "probe=semantic_entropy")
    assert list(again.tables["samples"].token_ids.map(tuple)) == list(samples.token_ids.map(tuple))


def test_marks_in_prompts_and_answers() -> None:
    think = KNOWN[0]
    assert open_in("Q\n<think>\n", KNOWN) is think
    assert open_in("<think>\n\n</think>\n\n", KNOWN) is None
    assert begun_in("\n<think>\nOkay", KNOWN) is think
    assert begun_in("I <think> so", KNOWN) is None
    assert open_in("...<|end|><|start|>assistant", KNOWN) is HARMONY
    assert begun_in("[THINK]Hm", KNOWN) == Marks("[THINK]", "[/THINK]")
    assert marks_of(ThinkingConfig("<t>", "</t>")) == (Marks("<t>", "</t>"),)


def test_what_was_thought_is_what_stands_between_the_marks() -> None:
    assert KNOWN[0].inside("<think>\nOkay.\n</think>") == "Okay."
    assert KNOWN[0].inside("Okay, cut") == "Okay, cut"
    said = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>So."
        "<|end|><|start|>assistant<|channel|>final<|message|>"
    )
    assert HARMONY.inside(said) == "Hm.\nSo."
    assert HARMONY.inside("<|channel|>final<|message|>") == ""


# Thoughts and answers of a random model, whose next token depends on all before it, against stock generation.

FILE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<t>{% endif %}"
)
THOUGHT, ANSWER = 20, 8


@pytest.fixture
def random_thinker(checkpoint: Callable[[str], Path], tmp_path: Path) -> tuple[str, ...]:
    """A random model whose thoughts end at the first letter a."""
    file = tmp_path / "thinks.jinja"
    file.write_text(FILE)
    return (
        *("model=custom", f"model.path={checkpoint('llama')}", f"model.chat_template={file}"),
        *("model.thinking.open=<t>", "model.thinking.close=a"),
        *("dataset=facts", "dataset.num_samples=24", "prompt.num_few_shot=2", "model.dtype=float32"),
        *(f"decoding.max_thinking_tokens={THOUGHT}", f"decoding.max_new_tokens={ANSWER}"),
    )


def greedy(
    model: PreTrainedModel, prompt: Sequence[int], most: int, is_end: Callable[[list[int]], bool]
) -> list[int]:
    """Tokens of stock generation, one by one without a cache, up to and with the one that ends them."""
    said: list[int] = []
    while len(said) < most and not (said and is_end(said)):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *said]])).logits[0, -1]
        said.append(int(logits.argmax()))
    return said


def test_thought_and_answer_are_those_of_stock_generation(
    run: Run, random_thinker: tuple[str, ...], checkpoint: Callable[[str], Path]
) -> None:
    result = run(*random_thinker)
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("llama"))
    seen = set()
    for row in result.tables["answers"].itertuples():
        assert row.prompt.endswith("?\n<t>")
        prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        thought = greedy(
            model,
            prompt,
            THOUGHT,
            lambda said: said[-1] == tokenizer.eos_token_id or "a" in tokenizer.decode(said),
        )
        is_over = thought[-1] == tokenizer.eos_token_id
        assert row.n_thinking_tokens == len(thought) - is_over
        if "a" not in tokenizer.decode(thought):
            assert (row.answer, row.ended) == ("", "empty" if is_over else "length")
            assert math.isnan(row.token_logprobs[0])
            seen.add(row.ended)
            continue
        seen.add("answered")
        check_answer(row, model, tokenizer, [*prompt, *thought])
    assert {"answered", "empty"} <= seen


def check_answer(
    row: object, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, given: list[int]
) -> None:
    """An answer and its log-probabilities, given prompt and thought."""

    def is_end(said: list[int]) -> bool:
        text = tokenizer.decode(said, skip_special_tokens=True).lstrip()
        return said[-1] == tokenizer.eos_token_id or any(stop in text for stop in STOPS)

    said = greedy(model, given, ANSWER, is_end)
    kept = said[:-1] if is_end(said) else said
    assert list(row.token_ids) == kept  # type: ignore[attr-defined]
    if kept:
        with torch.inference_mode():
            logprobs = model(torch.tensor([[*given, *kept]])).logits[0].double().log_softmax(-1)
        wanted = [logprobs[len(given) - 1 + place, token].item() for place, token in enumerate(kept)]
        assert list(row.token_logprobs) == pytest.approx(wanted, abs=1e-4)  # type: ignore[attr-defined]


class Reader:
    """Reads answers and thoughts with one model and a store, as a session does."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.store = store

    def read(
        self,
        prompts: Sequence[Prompt],
        decoding: DecodingConfig,
        stop: Sequence[str],
        *,
        of_thought: bool = False,
    ) -> AnswerReading:
        with Progress(Console(file=io.StringIO())) as progress:
            return read_answers(
                prompts,
                decoding,
                Stops(tuple(stop), of_thought=of_thought),
                description={},
                store_dir=str(self.store),
                tokenizer=self.tokenizer,
                open_model=lambda: LoadedModel(self.model, load_s=0.0),
                progress=progress,
            )

    def answers(self, prompts: Sequence[Prompt], decoding: DecodingConfig, *marks: Marks) -> AnswerReading:
        thoughts = partial(self.read, of_thought=True)
        return ThinkingReader(self.read, thoughts, self.tokenizer, marks, None).answers(
            prompts, decoding, STOPS
        )


@pytest.fixture
def sampled(checkpoint: Callable[[str], Path], tmp_path: Path) -> tuple[Reader, AnswerReading]:
    """Twelve prompts that begin a thought and two that do not, each with three samples."""
    reader = Reader(checkpoint("llama"), tmp_path / "store")
    texts = [f"What is number {number}?<t>" for number in range(12)] + ["Where is it?", "Who was it?"]
    prompts = [
        Prompt(Question(text, text, ("x",)), text, tuple(reader.tokenizer(text)["input_ids"]))
        for text in texts
    ]
    decoding = DecodingConfig(
        do_sample=True, num_generations=3, max_new_tokens=ANSWER, max_thinking_tokens=THOUGHT
    )
    return reader, reader.answers(prompts, decoding, Marks("<t>", "a"))


def test_the_log_probabilities_of_samples_are_given_their_own_thoughts(
    sampled: tuple[Reader, AnswerReading],
) -> None:
    reader, reading = sampled
    stock = AutoModelForCausalLM.from_pretrained(reader.folder, dtype=torch.float32).eval()
    seen = 0
    for prompt, found in zip(reading.prompts, reading.generations, strict=True):
        assert len(found) == 4
        assert all((each.thinking is not None) == prompt.text.endswith("<t>") for each in found)
        for each in found:
            ids = [*prompt.token_ids, *each.thinking_ids, *each.token_ids]
            with torch.inference_mode():
                logprobs = stock(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            start = len(prompt.token_ids) + len(each.thinking_ids)
            wanted = [logprobs[start - 1 + place, token].item() for place, token in enumerate(each.token_ids)]
            assert list(each.token_logprobs) == pytest.approx(wanted, abs=1e-4)
            seen += bool(each.token_ids) and bool(each.thinking_ids)
    assert seen > 10
    assert len({each.thinking_ids for found in reading.generations for each in found}) > 12


def test_activations_are_read_behind_the_thought(sampled: tuple[Reader, AnswerReading]) -> None:
    _, reading = sampled
    passages = answer_passages(reading, [True] * 14, Position.answer_first, context=None)
    for passage, prompt, answer in zip(passages, reading.prompts, reading.greedy, strict=True):
        before = (*prompt.token_ids, *answer.thinking_ids)
        assert passage.token_ids == (*before, *answer.token_ids[:1])
        assert passage.spans == ((len(passage.token_ids) - 1, len(passage.token_ids)),)


def test_samples_that_thought_the_same_are_different_draws(tmp_path: Path, once: Once) -> None:
    folder = once("chain-alike", lambda into: save_chain(into, "thinker", ("\n", "</think>")))
    reader = Reader(folder, tmp_path / "store")
    text = "Where?<think>\n"
    given = Prompt(Question("q", "Where?", ("x",)), text, tuple(reader.tokenizer(text)["input_ids"]))
    decoding = DecodingConfig(do_sample=True, num_generations=6, max_new_tokens=4, max_thinking_tokens=3)
    (found,) = reader.answers([given], decoding, *KNOWN).generations
    assert {each.thinking for each in found} == {""}
    assert len({each.token_ids for each in found[1:]}) > 1
