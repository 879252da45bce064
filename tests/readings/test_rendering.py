"""Conversations and bare statements under templates that refuse, hide, strip and add: what is read, and said."""

from __future__ import annotations

import pytest
from tests.chat_models import TEMPLATES, tokenizer

from probegrid.data.example import Conversation, Message, Statement, StatementSet
from probegrid.data.labelled import single_statement
from probegrid.errors import ConfigError, DataError
from probegrid.readings.rendering import NEUTRAL_TURN, is_bare, notes_on, notes_on_turns, rendered
from probegrid.readings.spans import Position, statement_passages
from probegrid.readings.templates import ChatTemplate
from probegrid.schema import StatementRendering

LIST = "1. Rome is in Italy.\n2. Rome is in Peru."
SHOUTING = "{% for message in messages %}{{ message['content'] | upper }}{% endfor %}"
LIARS = "You will lie on statement 2."


def talk(*turns: tuple[str, str]) -> Conversation:
    """A conversation whose last message holds the statements of ``LIST``."""
    content = turns[-1][1]
    statements = []
    for place, text in enumerate(("Rome is in Italy.", "Rome is in Peru.")):
        start = content.find(text)
        statements.append(Statement(f"c/{place}", text, place == 0, start, start + len(text)))
    return Conversation("c", tuple(Message(role, said) for role, said in turns), tuple(statements))


BARE = single_statement("s", "Rome is in Italy.", True)
ALONE = talk(("assistant", LIST))
TOLD = talk(("system", LIARS), ("assistant", LIST))


def template(name: str | None) -> ChatTemplate:
    vocabulary = tokenizer(name or "llama")
    return ChatTemplate(vocabulary, None if name is None else "default")


def test_plain_text_is_the_contents_with_blank_lines_between() -> None:
    shown = rendered(talk(("system", "Be true."), ("user", "Is it?"), ("assistant", LIST)), template(None))
    assert (shown.text, shown.origin) == (f"Be true.\n\nIs it?\n\n{LIST}", 18)
    assert shown.is_plain


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_bare_statement_is_its_text_whatever_the_template(name: str) -> None:
    assert is_bare(BARE) and not is_bare(ALONE)
    shown = rendered(BARE, template(name))
    assert (shown.text, shown.origin, shown.is_plain) == ("Rome is in Italy.", 0, True)
    (read,) = statement_passages(
        StatementSet((BARE,)), Position.last, tokenizer(name), template(name), context=None
    )
    assert read.token_ids[0] == tokenizer(name).bos_token_id
    assert tokenizer(name).decode(read.token_ids[1:]) == "Rome is in Italy."


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("bare", [StatementRendering.assistant, StatementRendering.user])
def test_a_bare_statement_as_a_turn(name: str, bare: StatementRendering) -> None:
    shown = rendered(BARE, template(name), bare)
    assert not shown.is_plain
    assert shown.text[shown.origin :].startswith("Rome is in Italy.")
    before = shown.text[: shown.origin]
    assert (NEUTRAL_TURN in before) == (bare is StatementRendering.assistant)
    assert shown.changes == ()


def test_a_turn_needs_a_template() -> None:
    with pytest.raises(
        ConfigError, match=r"prompt\.render=user reads statements as turns, and there is no chat"
    ):
        rendered(BARE, template(None), StatementRendering.user)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "conversation",
    [
        ALONE,
        TOLD,
        talk(("system", ""), ("assistant", LIST)),
        talk(("user", "Go"), ("user", "on"), ("assistant", LIST)),
        talk(("system", LIARS), ("user", "Go"), ("assistant", "Well:"), ("assistant", LIST)),
        talk(("user", "Go"), ("assistant", f"  {LIST} \n")),
    ],
    ids=["alone", "told", "empty", "twice", "joined", "padded"],
)
def test_every_conversation_is_read_and_its_statements_are_found(
    name: str, conversation: Conversation
) -> None:
    (read,) = statement_passages(
        StatementSet((conversation,)), Position.statement_mean, tokenizer(name), template(name), context=None
    )
    said = [tokenizer(name).decode(read.token_ids[slice(*span)]) for span in read.spans]
    assert [text.strip() for text in said] == ["Rome is in Italy.", "Rome is in Peru."]
    assert read.token_ids.count(tokenizer(name).bos_token_id) == (1 if "bos_token" in TEMPLATES[name] else 0)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", 0),
        ("chatml", 0),
        ("gemma", 1),
        ("mistral", 1),
        ("asked", 1),
        ("harmony", 0),
    ],
)
def test_as_little_is_done_as_the_template_takes(name: str, changes: int) -> None:
    shown = rendered(ALONE, template(name))
    assert len(shown.changes) == changes
    assert (NEUTRAL_TURN in shown.text) == bool(changes)


def test_what_each_template_makes_of_a_system_text() -> None:
    assert rendered(TOLD, template("llama")).shows_system
    folded = rendered(TOLD, template("gemma"))
    assert folded.shows_system
    assert f"{LIARS}\n\n{NEUTRAL_TURN}" in folded.text
    hidden = rendered(TOLD, template("mistral"))
    assert not hidden.shows_system
    assert "lie" not in hidden.text


def test_the_users_words_are_not_taken_for_the_assistants() -> None:
    shown = rendered(talk(("user", LIST), ("assistant", LIST)), template("llama"))
    assert shown.origin > shown.text.find(LIST)


def test_what_cannot_be_read_is_refused() -> None:
    vocabulary = tokenizer("llama")
    vocabulary.chat_template = SHOUTING
    with pytest.raises(DataError, match="does not show the assistant's content of conversation c"):
        rendered(ALONE, ChatTemplate(vocabulary, "default"))
    vocabulary.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(DataError, match=r"refuses conversation c with its roles assistant \(never\)"):
        rendered(ALONE, ChatTemplate(vocabulary, "default"))


def notes(name: str | None, *talks: Conversation) -> tuple[list[str], int]:
    vocabulary = tokenizer(name or "llama")
    return notes_on(StatementSet(talks), template(name), StatementRendering.plain, vocabulary)


def test_the_rendering_is_named() -> None:
    said, unseen = notes("gemma", ALONE, TOLD)
    assert unseen == 0
    assert said == [
        "conversations are read by the chat template",
        f"a neutral turn of the user ({NEUTRAL_TURN!r}) stands before the assistant's first, as the chat template asks "
        "(2 of 2 conversations)",
        "the system's text stands on top of the user's first turn, as the chat template asks (1 of 2 conversations)",
    ]
    assert notes("llama", BARE)[0] == [
        "statements are read as plain text, whatever the chat template (prompt.render=plain)"
    ]


def test_a_text_of_the_templates_own_is_said() -> None:
    said, _ = notes("chatml", ALONE)
    assert any(
        "puts a text of its own before 1 of 1 conversations: 'system You are Seven" in one for one in said
    )
    assert not any("of its own" in one for one in notes("llama", ALONE)[0])


def test_a_system_text_that_is_not_shown_is_said() -> None:
    said, unseen = notes("mistral", TOLD, ALONE, TOLD)
    assert unseen == 2
    assert said[-1] == (
        "the chat template does not show the system text of 2 of the 3 conversations: the model never sees it"
    )


def test_a_tokenizer_without_bos_is_said() -> None:
    vocabulary = tokenizer("chatml")
    vocabulary.backend_tokenizer.post_processor = None
    said, _ = notes_on(StatementSet((BARE,)), template("chatml"), StatementRendering.plain, vocabulary)
    assert "the tokenizer sets no BOS before plain text: the first token is the text's own" in said


@pytest.mark.parametrize(
    ("name", "has_system", "said"),
    [
        ("gemma", True, "on top of the user's first turn"),
        ("mistral", True, "on top of the user's first turn"),
        ("gemma", False, None),
        ("chatml", True, None),
        ("chatml", False, "a text of its own before the questions: 'system You are Seven"),
    ],
)
def test_what_a_template_does_to_a_question_is_said(name: str, has_system: bool, said: str | None) -> None:
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Faust"}]
    turns.append({"role": "user", "content": "Where?"})
    if has_system:
        turns.insert(0, {"role": "system", "content": "Be brief."})
    found = " ".join(notes_on_turns(turns, None, template(name)))
    assert said in found if said else not found
