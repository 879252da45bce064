"""From a conversation to the text a model reads, in a form that its chat template accepts.

Knows what templates refuse (a first turn that is not the user's, two turns of one role, a system turn), how each of it
is met, and that what was done is said. A bare statement is read as it stands unless a turn is asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from probegrid.data.example import Conversation, StatementSet
from probegrid.errors import ConfigError, DataError
from probegrid.readings.templates import PLACEHOLDER, ChatTemplate, TemplateFailure
from probegrid.schema import StatementRendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Turns = list[dict[str, str]]

NEUTRAL_TURN = "Tell me something."
"""What a user says where a template wants one to speak first."""
_FEWEST_WORDS = 4
"""Words of a template's own before a conversation from which on they are more than names of roles."""
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as a model reads it."""

    text: str
    origin: int
    """Where in it the content of the last message begins; before the text begins by what a template strips off it."""
    is_plain: bool
    """Whether it is plain text, to which the tokenizer adds its special tokens; else it holds its own."""
    changes: tuple[str, ...] = ()
    """What was done to the conversation so that the template takes it."""
    shows_system: bool = True
    """Whether the system's text stands in it, where there is one."""
    told: str = ""
    """What the template itself says before the first turn; empty: nothing."""


def is_bare(conversation: Conversation) -> bool:
    """Whether it is one statement and nothing else."""
    (*before, last), statements = conversation.messages, conversation.statements
    return not before and len(statements) == 1 and last.content.strip() == statements[0].text.strip()


def rendered(
    conversation: Conversation,
    template: ChatTemplate,
    bare: StatementRendering = StatementRendering.plain,
) -> Rendered:
    """A conversation as the model reads it.

    Args:
        conversation: its last message is the assistant's.
        template: where it is plain, the contents of the messages with a blank line between them.
        bare: how it is read where it is a bare statement.

    Raises:
        ConfigError: a statement is to be a turn, and there is no template.
        DataError: the template refuses the conversation in every form, or alters the assistant's content.
    """
    turns = [{"role": message.role, "content": message.content} for message in conversation.messages]
    if is_bare(conversation):
        if bare is not StatementRendering.plain and template.source is None:
            raise ConfigError(
                f"prompt.render={bare.value} reads statements as turns, and there is no chat template; drop it, or "
                "give one with model.chat_template=<file>."
            )
        if bare is StatementRendering.plain:
            return Rendered(turns[0]["content"], 0, is_plain=True)
        if bare is StatementRendering.user:
            turns = [{**turns[0], "role": "user"}]
        else:
            turns = [{"role": "user", "content": NEUTRAL_TURN}, *turns]
    if template.source is None:
        text = "\n\n".join(turn["content"] for turn in turns)
        return Rendered(text, len(text) - len(turns[-1]["content"]), is_plain=True)
    return _by_template(turns, template, conversation.id)


def _by_template(turns: Turns, template: ChatTemplate, name: str) -> Rendered:
    content = turns[-1]["content"]
    given = [turn["content"].strip() for turn in turns if turn["role"] == "system"]
    text, form, changes = _accepted(turns, template, name)
    last = form[-1]
    # the placeholder stands where the last content does, behind what was joined with it
    marked = [*form[:-1], {**last, "content": last["content"][: -len(content)] + PLACEHOLDER}]
    shown = template.render(marked)
    start = shown.rfind(PLACEHOLDER)
    stripped = content.strip()
    behind = text[max(start, 0) :]
    gap = len(behind) - len(behind.lstrip())
    if start < 0 or not behind[gap:].startswith(stripped):
        raise DataError(
            f"the chat template does not show the assistant's content of conversation {name} as it is, so that its "
            "statements cannot be found; set model.chat_template=none or give a template that does."
        )
    return Rendered(
        text,
        start + gap - (len(content) - len(content.lstrip())),
        is_plain=False,
        changes=changes,
        shows_system=all(system in text for system in given),
        told="" if given else _told(template, form),
    )


def _accepted(turns: Turns, template: ChatTemplate, name: str) -> tuple[str, Turns, tuple[str, ...]]:
    """The first form that the template takes: as given, or with as little done to it as it takes.

    Raises:
        DataError: it takes none.
    """
    first: TemplateFailure | None = None
    for form, changes in _forms(turns):
        try:
            return template.render(form), form, changes
        except TemplateFailure as failure:
            first = first or failure
    roles = ", ".join(turn["role"] for turn in turns)
    raise DataError(
        f"the chat template refuses conversation {name} with its roles {roles} ({first}); set "
        "model.chat_template=none, or see dataset.system_prompt."
    ) from first


def _forms(turns: Turns) -> Iterator[tuple[Turns, tuple[str, ...]]]:
    """A conversation as it is given, then with one thing more done to it each time, where there is something to do."""
    changes: tuple[str, ...] = ()
    yield turns, changes
    for change, form in (
        ("a system turn without text is left out", _without_empty_system),
        ("turns of one role are joined by a blank line", _joined),
        (
            f"a neutral turn of the user ({NEUTRAL_TURN!r}) stands before the assistant's first",
            _begun_by_user,
        ),
        ("the system's text stands on top of the user's first turn", _system_on_top),
    ):
        changed = form(turns)
        if changed != turns:
            turns, changes = changed, (*changes, change)
            yield turns, changes


def _without_empty_system(turns: Turns) -> Turns:
    return [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]


def _joined(turns: Turns) -> Turns:
    return [
        {"role": role, "content": "\n\n".join(turn["content"] for turn in same)}
        for role, same in groupby(turns, key=lambda turn: turn["role"])
    ]


def _begun_by_user(turns: Turns) -> Turns:
    place = next((index for index, turn in enumerate(turns) if turn["role"] != "system"), 0)
    if turns[place]["role"] == "user":
        return turns
    return [*turns[:place], {"role": "user", "content": NEUTRAL_TURN}, *turns[place:]]


def _system_on_top(turns: Turns) -> Turns:
    if turns[0]["role"] != "system" or len(turns) < 2:  # a system turn and another
        return turns
    told, first, *others = turns
    return [{**first, "content": f"{told['content']}\n\n{first['content']}"}, *others]


def _told(template: ChatTemplate, form: Turns) -> str:
    """What a template says by itself before the first turn: more than names of roles."""
    marked = [{**form[0], "content": PLACEHOLDER}, *form[1:]]
    try:
        shown = template.render(marked)
    except TemplateFailure:
        return ""
    before = re.sub(r"<[^<>\s]*>|\[[A-Z_/]+\]", " ", shown[: max(shown.find(PLACEHOLDER), 0)])
    return " ".join(before.split()) if len(_WORD.findall(before)) >= _FEWEST_WORDS else ""


def notes_on(
    data: StatementSet,
    template: ChatTemplate,
    bare: StatementRendering,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[list[str], int]:
    """What a result says of how its statements are read, and how many conversations hide a system text.

    Raises:
        ConfigError, DataError: as of `rendered`.
    """
    found = [rendered(conversation, template, bare) for conversation in data.conversations]
    every = len(found)
    notes = [*_on_forms(data.conversations, found, bare)]
    for change, count in Counter(change for one in found for change in one.changes).items():
        notes.append(f"{change}, as the chat template asks ({count} of {every} conversations)")
    for told, count in Counter(one.told for one in found if one.told).most_common(1):
        notes.append(
            f"the chat template puts a text of its own before {count} of {every} conversations: {told[:120]!r}"
        )
    if any(not one.is_plain for one in found):
        notes += template.notes()
    if any(one.is_plain for one in found) and not _adds_bos(tokenizer):
        notes.append("the tokenizer sets no BOS before plain text: the first token is the text's own")
    unseen = sum(not one.shows_system for one in found)
    if unseen:
        is_all = unseen == every
        notes.append(
            f"the chat template does not show the system text of {'any' if is_all else unseen} of the {every} "
            "conversations: the model never sees it"
        )
    return notes, unseen


def notes_on_turns(turns: Turns, prefill: str | None, template: ChatTemplate) -> Iterator[str]:
    """What a result says of how a question's turns are shown by a template, which must be there."""
    if template.moves_system(turns, prefill):
        yield "the system's text stands on top of the user's first turn, as the chat template asks"
    elif turns[0]["role"] != "system" and (told := _told(template, turns)):
        yield f"the chat template puts a text of its own before the questions: {told[:120]!r}"


def _on_forms(
    conversations: Sequence[Conversation], found: Sequence[Rendered], bare: StatementRendering
) -> Iterator[str]:
    alone = sum(map(is_bare, conversations))
    how = {
        StatementRendering.plain: "as plain text, whatever the chat template",
        StatementRendering.assistant: f"as the assistant's turn after {NEUTRAL_TURN!r}",
        StatementRendering.user: "as the user's turn",
    }[bare]
    if alone:
        yield f"statements are read {how} (prompt.render={bare.value})"
    if alone < len(found):
        plain = next(
            one.is_plain for one, talk in zip(found, conversations, strict=True) if not is_bare(talk)
        )
        yield f"conversations are read {'as plain text' if plain else 'by the chat template'}"


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("A")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
