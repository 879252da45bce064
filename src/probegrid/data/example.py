"""What a dataset is made of, once it is loaded.

Knows questions, references and statements as plain values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True, slots=True)
class Question:
    """One question with everything that counts as a right answer."""

    id: str
    text: str
    references: tuple[str, ...]
    """Accepted answers, the first of them the one shown in a few-shot example. Empty: the question has no answer."""
    context: str = ""
    """Paragraph that holds the answer; empty where the dataset has none."""
    group: str = ""
    """Name of what must stay together in a split and in a bootstrap resample (article, paragraph); empty: itself."""


@dataclass(frozen=True)
class QuestionSet:
    """The questions that are asked, and those that may be shown as few-shot examples: disjoint by id and by text."""

    questions: tuple[Question, ...]
    shots: tuple[Question, ...]
    rule: str
    """Name of the rule of correctness by which an answer is judged (`evaluation.rules`)."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the set came about ("asked for 400, the file has 120: all of them")."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every question that is asked and every one that may be shown, in order."""
        return content_hash([self.rule, *map(asdict, self.questions), "shots", *map(asdict, self.shots)])


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement inside a conversation, and whether it is true."""

    id: str
    text: str
    label: bool
    char_start: int
    """First character of the statement in the content of the message that holds it."""
    char_end: int
    """One past its last character, so that ``content[char_start:char_end] == text``."""
    source: str = ""
    """The list it was taken from (cities, facts, ...), for ``split=leave_one_source_out``."""
    group: str = ""
    """What the data says it belongs to (``dataset.group``): one group is on one side of a split; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages whose last one, the assistant's, holds the statements."""

    id: str
    messages: tuple[Message, ...]
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class StatementSet:
    """Conversations with labelled statements."""

    conversations: tuple[Conversation, ...]
    notes: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    """Why a probe could read the labels off the text ("the system prompt names the lies"); empty: none is known."""
    labelled: bool = True
    """False: no label is known and each stands as False; the set can be scored, not trained nor evaluated on."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every conversation, in order, and over whether their labels are known."""
        return content_hash([self.labelled, *map(_described, self.conversations)])


def _described(conversation: Conversation) -> dict[str, object]:
    """A conversation as plain values, without groups where none is named: a field of later changes no fingerprint."""
    described = asdict(conversation)
    for statement in described["statements"]:
        if not statement["group"]:
            del statement["group"]
    return described


def content_hash(rows: Iterable[object]) -> str:
    """SHA-256 (hex) of JSON-serializable rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()
