"""Chat templates in the manner of today's vendors: dates, thinking, ends of turns, and what a result says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chat_models import DATE, TEMPLATES, tokenizer

from probegrid.errors import ConfigError
from probegrid.readings.templates import ChatTemplate
from probegrid.readings.thinking import HARMONY
from probegrid.schema import ModelConfig, ThinkingConfig

ASKED = [{"role": "user", "content": "Where?"}]


def template(name: str, thinking: ThinkingConfig | None = None, **told: object) -> ChatTemplate:
    return ChatTemplate(tokenizer(name), "default", told, thinking)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_asks_and_brings_one_bos_at_most(name: str) -> None:
    made = template(name)
    text = made.of_turns([{"role": "system", "content": "Be brief."}, *ASKED])
    (ids,) = made.tokenize([text])
    vocabulary = tokenizer(name)
    assert ids.count(vocabulary.bos_token_id) == (1 if "bos_token" in TEMPLATES[name] else 0)
    assert text.count("Be brief.") == text.count("Where?") == 1
    assert text.index("Be brief.") < text.index("Where?")


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("llama", "</turn>"),
        ("chatml", "</turn>"),
        ("hybrid", "</turn>"),
        ("thinker", "</turn>"),
        ("gemma", "</turn>"),
        ("mistral", "</s>"),
        ("asked", "</turn>"),
        ("open_ended", "<|observe|>"),
        ("harmony", "<|end|>"),
        ("parts", "</turn>"),
    ],
)
def test_the_end_of_a_turn(name: str, ends: str) -> None:
    assert template(name).end_of_turn == (tokenizer(name).convert_tokens_to_ids(ends),)


def test_plain_text_ends_no_turn_and_a_template_without_special_tokens_has_no_end(tmp_path: Path) -> None:
    assert ChatTemplate(tokenizer("llama"), None).end_of_turn == ()
    file = tmp_path / "plain.jinja"
    file.write_text(
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    )
    assert ChatTemplate(tokenizer("llama"), str(file)).end_of_turn == ()


def test_thinking_is_switched_off_where_the_template_can_and_said() -> None:
    made = template("hybrid")
    assert made(prompt="Where?").endswith("<turn>assistant\n<think>\n\n</think>\n\n")
    assert list(made.notes()) == [
        "thinking is switched off (model.template_kwargs.enable_thinking=false, unless you give another)"
    ]
    on = template("hybrid", enable_thinking=True)
    assert on("Where?").endswith("<turn>assistant\n")
    assert not list(on.notes())


def test_the_least_thinking_where_it_cannot_be_switched_off() -> None:
    made = template("harmony")
    assert "Reasoning: low" in made("Where?")
    assert any("the least thinking is asked for" in note for note in made.notes())
    assert "Reasoning: high" in template("harmony", reasoning_effort="high")("Where?")


def test_an_argument_that_changes_nothing_is_said() -> None:
    assert list(template("gemma", enable_thinking=False).notes()) == [
        "the chat template does not ask for model.template_kwargs.enable_thinking, which changes nothing"
    ]
    in_plain_text = ChatTemplate(tokenizer("gemma"), None, {"enable_thinking": True})
    assert list(in_plain_text.notes()) == [
        "no chat template is used, so that model.template_kwargs.enable_thinking changes nothing "
        "(model.chat_template=default is the tokenizer's own)"
    ]
    assert list(ChatTemplate(tokenizer("gemma"), "none").notes()) == []


@pytest.mark.parametrize("name", ["llama", "harmony"])
def test_dates_are_pinned_and_said(name: str) -> None:
    said = [{"role": "system", "content": "Hi."}, *ASKED]
    shown = template(name).render(said)
    assert "26 Jul 2024" in shown or "2024-07-26" in shown
    another = template(name, date_string="01 Feb 2025").render(said)
    assert "01 Feb 2025" in another or "2025-02-01" in another
    assert any(
        note.startswith("the chat template is told the day 26 Jul 2024") for note in template(name).notes()
    )


@pytest.mark.parametrize(
    "asks",
    [
        DATE.replace("'%d %b %Y'", "messages[0]['content']"),
        "{% set now = strftime_now %}{{ now('%Y') }}",
    ],
)
def test_a_time_that_cannot_be_fixed_is_refused(asks: str) -> None:
    vocabulary = tokenizer("llama")
    vocabulary.chat_template = asks
    with pytest.raises(ConfigError, match="computes how it asks for the time"):
        ChatTemplate(vocabulary, "default")


def test_prompts_that_begin_a_thought() -> None:
    marks = template("thinker").thought_before(template("thinker")("Where?"))
    assert marks is not None and (marks.open, marks.close) == ("<think>", "</think>")
    assert template("harmony").thought_before(template("harmony")("Where?")) is HARMONY
    for name in ("hybrid", "llama", "gemma"):
        assert template(name).thought_before(template(name)("Is <think> a word?")) is None


@pytest.mark.parametrize(
    ("name", "told", "ending"),
    [
        ("thinker", {}, "[/INST]<think>\n\n</think>\n\n"),
        ("hybrid", {}, "<turn>assistant\n<think>\n\n</think>\n\n"),
        ("hybrid", {"enable_thinking": True}, "<turn>assistant\n<think>\n\n</think>\n\n"),
        ("harmony", {}, "<|start|>assistant<|channel|>final<|message|>"),
        ("gemma", {}, "<turn>assistant\n"),
    ],
)
def test_a_choice_is_never_read_inside_a_thought(name: str, told: dict[str, object], ending: str) -> None:
    made = template(name, **told)
    closed = made.closed(made("Where?"))
    assert closed.endswith(ending)
    assert closed.count("</think>") <= 1
    assert made.closed(closed) == closed


def test_a_prefill_stands_behind_an_empty_thought() -> None:
    for name in ("thinker", "hybrid"):
        assert template(name).of_turns(ASKED, "It is").endswith("<think>\n\n</think>\n\nIt is")
    assert template("harmony").of_turns(ASKED, "It is").endswith("<|channel|>final<|message|>It is")


def test_marks_of_ones_own() -> None:
    given = ThinkingConfig(open="[INST]", close="[/INST]")
    made = template("gemma", given)
    marks = made.thought_before("Where?[INST]")
    assert marks is not None and marks.close == "[/INST]"
    assert made.thought_before("Where?<think>") is None
    with pytest.raises(
        ConfigError, match=r"model\.thinking\.open and model\.thinking\.close belong together"
    ):
        ThinkingConfig(open="<t>")


def test_words_that_a_template_does_not_show_are_missed() -> None:
    made = template("parts")
    assert made("Where?") == "<turn>user: Where?</turn>\n<turn>assistant: "
    vocabulary = tokenizer("llama")
    vocabulary.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    with pytest.raises(ConfigError, match="does not show the user's words as they are"):
        ChatTemplate(vocabulary, "default")("Where?")


def test_several_templates_without_a_default() -> None:
    vocabulary = tokenizer("llama")
    vocabulary.chat_template = {"rag": "a", "tool_use": "b"}
    with pytest.raises(ConfigError, match=r"several chat templates \(rag, tool_use\)"):
        ChatTemplate.of_questions(vocabulary, ModelConfig(path="x", chat_template="default"))
    vocabulary.chat_template = {"rag": "a", "default": TEMPLATES["llama"]}
    assert ChatTemplate(vocabulary, "default").source is not None


def test_marks_that_everything_begins_with_are_refused() -> None:
    for mark in ("", " ", "x"):
        with pytest.raises(ConfigError, match=r"model\.thinking\.open=.*give two marks, or null"):
            ThinkingConfig(open=mark or " ", close=mark or " ")


EXAMPLE = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Faust"}]


@pytest.mark.parametrize(
    "shown", ["messages[-1:]", "messages | selectattr('role', 'eq', 'user')", "messages | reverse"]
)
def test_a_template_that_hides_or_moves_examples_is_refused(shown: str, tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(f"{{% for message in {shown} %}}{{{{ message['content'] }}}}\n{{% endfor %}}")
    made = ChatTemplate(tokenizer("llama"), str(file))
    assert made.of_turns(ASKED) == "Where?\n"
    with pytest.raises(ConfigError, match=r"leaves out turns before the user's last.*num_few_shot=0"):
        made.of_turns([*EXAMPLE, *ASKED])


@pytest.mark.parametrize(
    "name", ["add_generation_prompt", "messages", "conversation", "tokenize", "return_dict"]
)
def test_arguments_that_are_not_the_users_to_give(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.template_kwargs\.{name} is set by probegrid itself"):
        template("llama", **{name: True})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_bytes("{{ messages[0]['content'] }} \N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"model\.chat_template=.*cannot be read: 'utf-8'"):
        ChatTemplate(tokenizer("llama"), str(file))
