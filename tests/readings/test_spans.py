"""From conversations and answers to tokens: every span decodes to its statement, whatever the template and the text."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from probegrid.data.example import Conversation, Message, Question, Statement, StatementSet
from probegrid.embedded import tokenizer as embedded
from probegrid.errors import CheckpointError, ConfigError, DataError
from probegrid.inference.generation import Generation
from probegrid.readings.answers import AnswerReading
from probegrid.readings.identity import digest_of
from probegrid.readings.prompts import Prompt
from probegrid.readings.rendering import rendered
from probegrid.readings.spans import (
    Passage,
    Position,
    answer_passages,
    statement_passages,
    token_span,
    token_texts,
)
from probegrid.readings.templates import ChatTemplate

torch.set_num_threads(1)

LLAMA = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|' + message['role'] + '|>' + '\n\n' + message['content'] | trim + eos_token }}{%- endfor %}"
)
TEMPLATES = {"plain": None, "embedded": embedded.CHAT_TEMPLATE, "trimming": LLAMA}


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    return embedded.build(4096)


def chat(source: str | None) -> ChatTemplate:
    template = ChatTemplate(tokenizer(), None)
    template.source = source
    return template


def conversation(pieces: list[tuple[str, str]], before: tuple[Message, ...] = ()) -> Conversation:
    """The assistant's message made of (text in between, statement) pairs."""
    content, statements = "", []
    for index, (gap, text) in enumerate(pieces):
        content += gap
        statements.append(
            Statement(f"c/{index}", text, index % 2 == 0, len(content), len(content) + len(text), "s")
        )
        content += text
    return Conversation("c", (*before, Message("assistant", content)), tuple(statements))


def passage(
    one: Conversation, position: Position, source: str | None = None, context: int | None = None
) -> Passage:
    (found,) = statement_passages(StatementSet((one,)), position, tokenizer(), chat(source), context=context)
    return found


def decoded(found: Passage, index: int) -> str:
    start, end = found.spans[index]
    return str(tokenizer().decode(found.token_ids[start:end], clean_up_tokenization_spaces=False))


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
statements = texts.filter(lambda text: text == text.strip())
gaps = st.one_of(st.sampled_from(["", " ", "\n", "\n1. ", " é", "🙂", "</s>"]), texts)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=80, deadline=None)
@given(pieces=st.lists(st.tuples(gaps, statements), min_size=1, max_size=4), user=texts)
def test_spans_decode_to_their_statements(template: str, pieces: list[tuple[str, str]], user: str) -> None:
    one = conversation(pieces, before=(Message("user", user),))
    found = passage(one, Position.statement_mean, TEMPLATES[template])
    for index, (_, statement) in enumerate(pieces):
        text = decoded(found, index)
        assert statement in text
        start, end = found.spans[index]
        for fewer in ((start + 1, end), (start, end - 1)):  # no token too many
            assert statement not in decoded(replace(found, spans=(fewer,)), 0)


@settings(max_examples=80, deadline=None)
@given(pieces=st.lists(st.tuples(gaps, statements), min_size=1, max_size=4))
def test_positions_follow_from_the_span(pieces: list[tuple[str, str]]) -> None:
    one = conversation(pieces, before=(Message("user", "Go"),))
    source = TEMPLATES["embedded"]
    spans = passage(one, Position.statement_mean, source).spans
    assert passage(one, Position.statement_end, source).spans == tuple((end - 1, end) for _, end in spans)
    after = passage(one, Position.next_token, source)
    assert after.spans == tuple((end, end + 1) for _, end in spans)
    text = rendered(one, chat(source)).text
    whole = tokenizer()(text, add_special_tokens=False)["input_ids"]
    last = passage(one, Position.last, source)
    assert list(last.token_ids) == whole
    assert set(last.spans) == {(len(whole) - 1, len(whole))}
    for found in (passage(one, Position.statement_end, source), after):
        end = max(end for _, end in found.spans)
        assert list(found.token_ids) == whole[:end]  # nothing is read behind it


@given(
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    bounds=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_token_span_against_a_loop_over_characters(lengths: list[int], bounds: tuple[int, int]) -> None:
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
    offsets = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    start, end = sorted(bounds)
    holders = [
        index
        for index, (first, after) in enumerate(offsets)
        if set(range(first, after)) & set(range(start, end))
    ]
    assert token_span(offsets, start, end) == ((holders[0], holders[-1] + 1) if holders else (0, 0))


def test_the_examples_of_a_passage() -> None:
    one = conversation([("1. ", "Rome is in Italy."), ("\n2. ", "Rome is in Peru.")])
    found = passage(one, Position.statement_end)
    assert found.id == "c"
    assert [(example.id, example.conversation, example.text) for example in found.examples] == [
        ("c/0", "c", "Rome is in Italy."),
        ("c/1", "c", "Rome is in Peru."),
    ]
    assert [(example.label, example.source) for example in found.examples] == [(True, "s"), (False, "s")]
    assert [decoded(found, index) for index in (0, 1)] == [".", "."]


def test_a_template_brings_its_own_special_tokens_and_plain_text_gets_the_tokenizers() -> None:
    one = conversation([("", "Rome is in Italy.")])
    for source in (None, embedded.CHAT_TEMPLATE):
        ids = passage(one, Position.statement_end, source).token_ids
        assert ids.count(tokenizer().bos_token_id) == 1
        assert ids[0] == tokenizer().bos_token_id


def test_offsets_that_are_wrong_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    one = conversation([("1. ", "Rome is in Italy."), ("\n2. ", "Peru.")])
    shifted = embedded.build(64)
    encode = type(shifted)._encode_plus

    def shift(self: Any, *args: Any, **kwargs: Any) -> Any:
        encoded = encode(self, *args, **kwargs)
        encoded["offset_mapping"] = [(start + 2, end + 2) for start, end in encoded["offset_mapping"]]
        return encoded

    monkeypatch.setattr(type(shifted), "_encode_plus", shift)
    with pytest.raises(DataError, match="the tokens of statement c/0 of conversation c decode to"):
        statement_passages(StatementSet((one,)), Position.statement_mean, shifted, chat(None), context=None)


def test_no_token_after_the_statement() -> None:
    one = conversation([("", "Rome is in Italy.")])
    with pytest.raises(DataError, match="no token comes after statement c/0 of conversation c"):
        passage(one, Position.next_token)
    told = conversation([("", "Rome is in Italy.")], before=(Message("user", "Go"),))
    assert (
        passage(told, Position.next_token, embedded.CHAT_TEMPLATE).token_ids[-1] == tokenizer().eos_token_id
    )


def test_the_context_bounds_what_is_read_and_not_what_follows() -> None:
    one = conversation([("", "Rome is in Italy."), (" and so on" * 20, "Yes.")])
    first = Conversation(one.id, one.messages, one.statements[:1])
    end = passage(first, Position.statement_end).spans[0][1]
    assert len(passage(first, Position.statement_end, context=end).token_ids) == end
    with pytest.raises(DataError, match=f"c/0 of c is read at token {end}, but the model takes {end - 1}"):
        passage(first, Position.statement_end, context=end - 1)
    with pytest.raises(DataError, match="c/1 of c"):
        passage(one, Position.statement_end, context=end)


def test_a_tokenizer_without_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = embedded.build(64)
    monkeypatch.setattr(type(slow), "is_fast", False)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        statement_passages(StatementSet(()), Position.last, slow, chat(None), context=None)


@pytest.mark.parametrize("position", [Position.answer_first, Position.answer_last])
def test_positions_of_answers_are_not_positions_of_statements(position: Position) -> None:
    with pytest.raises(
        ConfigError, match=r"positions=answer_\w+ is not .* statements; allowed: statement_end"
    ):
        passage(conversation([("", "Rome.")]), position)


def reading(*answers: tuple[int, ...]) -> AnswerReading:
    questions = [Question(f"q{index}", "Where?", ("x",), group="g" * index) for index in range(len(answers))]
    prompts = tuple(Prompt(question, "Where?", (5, 6, 7)) for question in questions)
    generations = tuple(
        (Generation(ids, (0.0,) * len(ids), "there", 1, 0.0, -0.5, "stop"),) for ids in answers
    )
    return AnswerReading("key", prompts, generations, 1.0, 0.0, 1, 0)


@pytest.mark.parametrize(
    ("position", "spans"),
    [
        (Position.answer_first, [(3, 4), (3, 4), (2, 3)]),
        (Position.answer_last, [(5, 6), (3, 4), (2, 3)]),
        (Position.answer_before_last, [(4, 5), (2, 3), (2, 3)]),
        (Position.answer_mean, [(3, 6), (3, 4), (2, 3)]),
        (Position.prompt_last, [(2, 3), (2, 3), (2, 3)]),
        (Position.last, [(5, 6), (3, 4), (2, 3)]),
    ],
)
def test_answers(position: Position, spans: list[tuple[int, int]]) -> None:
    found = answer_passages(reading((8, 9, 10), (8,), ()), [True, False, True], position, context=None)
    assert [one.spans for one in found] == [(span,) for span in spans]
    for one, span, ids in zip(found, spans, [(5, 6, 7, 8, 9, 10), (5, 6, 7, 8), (5, 6, 7)], strict=True):
        assert one.token_ids == ids[: span[1]]
    examples = [example for one in found for example in one.examples]
    assert [example.label for example in examples] == [True, False, True]
    assert [example.conversation for example in examples] == ["q0", "g", "gg"]
    assert examples[0].text == "Where? there"


@pytest.mark.parametrize("position", [Position.prompt_last, Position.answer_last])
def test_where_a_prompt_ends_is_told_and_known_where_models_read_it_otherwise(position: Position) -> None:
    """The same tokens all of a prompt, or some of an answer, are other states; of other models they are the same."""
    alike = answer_passages(reading((8, 9), ()), [True, False], position, context=None)
    apart = answer_passages(reading((8, 9), ()), [True, False], position, context=None, prompts_apart=True)
    assert [one.prompt for one in alike] == [None, None]
    assert [one.prompt for one in apart] == [3, 3]
    for one, other in zip(alike, apart, strict=True):
        assert (one.token_ids, one.spans) == (other.token_ids, other.spans)
        assert one.digest == digest_of(one.token_ids, one.spans) != other.digest


def test_an_answer_beyond_the_context_and_a_position_of_statements() -> None:
    with pytest.raises(DataError, match="q0 of q0 is read at token 5"):
        answer_passages(reading((8, 9)), [True], Position.answer_last, context=4)
    with pytest.raises(
        ConfigError, match="allowed: prompt_last, answer_first, answer_before_last, answer_last"
    ):
        answer_passages(reading((8, 9)), [True], Position.statement_end, context=None)


@pytest.mark.parametrize("template", [None, LLAMA, embedded.CHAT_TEMPLATE])
@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from(["", "\n", "1. "]), st.text("ab. ", min_size=1, max_size=6).filter(str.strip)
        ),
        min_size=1,
        max_size=3,
    ),
    before=st.sampled_from(["", " ", "\n\n"]),
    after=st.sampled_from(["", " ", " \n "]),
)
def test_the_end_of_a_statement_is_its_last_character_and_never_the_end_of_the_turn(
    template: str | None, pieces: list[tuple[str, str]], before: str, after: str
) -> None:
    gap, last = pieces[-1]
    pieces = [*pieces[:-1], (gap, last + after)]
    one = conversation([(before + pieces[0][0], pieces[0][1]), *pieces[1:]], (Message("user", "Go"),))
    found = passage(one, Position.statement_end, template)
    for index, statement in enumerate(one.statements):
        assert statement.text.strip()[-1] in decoded(found, index)
        assert str(tokenizer().eos_token) not in decoded(found, index)


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_what_tokens_say_is_the_text_together(text: str) -> None:
    """Characters of several tokens stand whole, at the last of them."""
    ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
    found = token_texts(ids, tokenizer())
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer().decode(ids, clean_up_tokenization_spaces=False)


def test_a_character_that_its_tokens_do_not_end_is_shown_as_far_as_it_goes() -> None:
    ids = tokenizer()("a \N{SNOWMAN}", add_special_tokens=False)["input_ids"]
    assert token_texts(ids, tokenizer())[-1] == "\N{SNOWMAN}"
    assert token_texts(ids[:-1], tokenizer())[-1] == "\N{REPLACEMENT CHARACTER}"
    assert token_texts([], tokenizer()) == []
