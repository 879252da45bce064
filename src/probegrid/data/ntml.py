"""NTML ("n truths, m lies"): an assistant's list of true and false statements, each with its label and place.

Knows the JSON of an NTML record and what its system prompt gives away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from probegrid.data.example import Conversation, Message, Statement, StatementSet, have_one_class
from probegrid.data.sampling import draw
from probegrid.data.source import read_splits
from probegrid.data.table import Row, cell, text
from probegrid.errors import DataError
from probegrid.schema import DatasetConfig

NEUTRAL_SYSTEM_PROMPT = "You are a helpful assistant."
LEAK = (
    "the system prompt says which statements are lies (dataset.system_prompt=keep), so that a regular "
    "expression reads every label off it and every later token can attend to it"
)
_ROLES = ("system", "user", "assistant")


class SystemPrompt(Enum):
    """What becomes of a conversation's system prompt, which names the lies."""

    drop = "drop"
    """Left out."""
    keep = "keep"
    """Kept, as in the literature; the result is marked as leaky."""
    neutral = "neutral"
    """Replaced by one fixed sentence that says nothing of truths and lies."""


@dataclass
class NtmlConfig(DatasetConfig):
    """Conversations of NTML: ``num_samples`` counts conversations, not statements."""

    num_samples: int = 500
    """Conversations to read; 500 is the size of NTML's own files."""
    path: str | None = None
    """Local file or folder of JSON lines, or a hub id."""
    system_prompt: SystemPrompt = SystemPrompt.drop
    """What becomes of the system prompt."""


def load(config: NtmlConfig) -> StatementSet:
    """Read the conversations.

    Raises:
        DataError: the data is missing or empty, a record lacks a field, an id occurs twice, or a statement is
            not where its span says.
    """
    table = next(read_splits(config, [config.split]))
    table.require(
        ("id", "messages", "labels"), "Statements without conversations are read with dataset=statements"
    )
    conversations = [
        parse_conversation(table.row(index), config.system_prompt, table.where(index))
        for index in range(len(table))
    ]
    seen: set[str] = set()
    for index, conversation in enumerate(conversations):
        if conversation.id in seen:
            raise DataError(f"{table.where(index)} has the id '{conversation.id}' of an earlier row.")
        seen.add(conversation.id)
    drawn, notes = draw(conversations, config, "conversations", table.name)
    return StatementSet(
        drawn,
        (*table.notes, *notes),
        leaks(drawn, config.system_prompt),
        has_one_class=have_one_class(conversations),
    )


def leaks(conversations: tuple[Conversation, ...], system_prompt: SystemPrompt) -> tuple[str, ...]:
    """Why labels could be read off the text: the system prompts, where they are kept."""
    spoken = any(
        message.role == "system" for conversation in conversations for message in conversation.messages
    )
    return (LEAK,) if system_prompt is SystemPrompt.keep and spoken else ()


def parse_conversation(record: Row, system_prompt: SystemPrompt, where: str) -> Conversation:
    """Make a conversation of a record and check every span.

    Raises:
        DataError: a field is missing or of another kind, or a statement is not where its span says.
    """
    name = text(cell(record, "id", where), f"the id in {where}")
    where = f"conversation {name} ({where})"
    messages = tuple(_message(message, where) for message in _rows(record, "messages", where))
    if messages[-1].role != "assistant":
        raise DataError(
            f"the last message of {where} is not the assistant's, which would hold the statements."
        )
    labels = cell(record, "labels", where)
    if not isinstance(labels, Mapping):
        raise DataError(
            f"the labels of {where} are {labels!r}; an object with 'statement_level' is expected."
        )
    statements = tuple(
        _statement(row, name, messages[-1].content, where) for row in _rows(labels, "statement_level", where)
    )
    if len({statement.id for statement in statements}) < len(statements):
        raise DataError(f"two statements of {where} have the same position.")
    return Conversation(name, _with_system_prompt(messages, system_prompt), statements)


def _message(row: Row, where: str) -> Message:
    role = cell(row, "role", where)
    if role not in _ROLES:
        raise DataError(f"a message of {where} has the role {role!r}; allowed: {', '.join(_ROLES)}.")
    return Message(role, text(cell(row, "content", where), f"the content of a message of {where}"))


def _statement(row: Row, conversation: str, content: str, where: str) -> Statement:
    position = _typed(row, "position", int, where)
    where = f"statement {position} of {where}"
    start, end = _typed(row, "char_start", int, where), _typed(row, "char_end", int, where)
    wanted = text(cell(row, "text", where), f"the text of {where}")
    if end > len(content):  # a slice would not say
        raise DataError(
            f"{where}: characters {start} to {end} end past the content, which has {len(content)} characters "
            f"({content[start:]!r} from {start} on) where {wanted!r} is expected."
        )
    if not 0 <= start < end or content[start:end] != wanted:
        raise DataError(
            f"{where}: characters {start} to {end} of the content are {content[start:end]!r}, not {wanted!r}."
        )
    start += len(wanted) - len(wanted.lstrip())  # white space around it is read, but is no part of it
    wanted = wanted.strip()
    end = start + len(wanted)
    return Statement(
        id=f"{conversation}/{position}",
        text=wanted,
        label=_typed(row, "is_true", bool, where),
        char_start=start,
        char_end=end,
        source=_typed(row, "source", str, where),
    )


def _with_system_prompt(messages: tuple[Message, ...], system_prompt: SystemPrompt) -> tuple[Message, ...]:
    if system_prompt is SystemPrompt.keep:
        return messages
    others = tuple(message for message in messages if message.role != "system")
    return (
        (Message("system", NEUTRAL_SYSTEM_PROMPT), *others)
        if system_prompt is SystemPrompt.neutral
        else others
    )


def _rows(record: Row, column: str, where: str) -> list[Row]:
    rows = cell(record, column, where)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"'{column}' of {where} is not a list of objects.")
    return rows


def _typed(row: Row, column: str, expected: type, where: str) -> Any:
    value = cell(row, column, where)
    if type(value) is not expected:
        raise DataError(f"'{column}' of {where} is {value!r}; {_KINDS[expected]} is expected.")
    return value


_KINDS = {int: "a whole number", bool: "true or false", str: "a text"}
