"""What a dataset is made of, once it is loaded.

Knows questions, references and statements as plain values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal


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
    options: tuple[str, ...] = ()
    """What may be chosen, in the order in which letters are given; the first reference is then the right one's letter,
    the second its text. Empty: the answer is free."""
    more_options: tuple[tuple[str, bool], ...] = ()
    """Options beside the lettered ones, shown to nobody: each, and whether it is true. Where options are scored as
    texts, these are too (TruthfulQA: several true ones)."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns of its conversation: question and accepted answer of each."""
    solution: str = ""
    """How the answer is reached, for examples that show their reasoning; empty: not known."""

    @property
    def content(self) -> dict[str, object]:
        """Its fields as plain values; those that came later only where they say something, so that no hash changes."""
        values = asdict(self)
        later = ("options", "more_options", "history", "solution")
        return {name: value for name, value in values.items() if value or name not in later}


@dataclass(frozen=True)
class QuestionSet:
    """The questions that are asked, and those that may be shown as few-shot examples: disjoint by id and by text."""

    questions: tuple[Question, ...]
    shots: tuple[Question, ...]
    rule: str
    """Name of the rule of correctness by which an answer is judged (`evaluation.rules`)."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the set came about ("asked for 400, the file has 120: all of them")."""
    threshold: float | None = None
    """What an answer must reach to be correct; None: the rule's own."""
    language: str | None = None
    """Language by which words are normalized; None: the rule's own."""
    shots_in_order: bool = False
    """Whether the first few-shot examples are shown, and not drawn ones."""

    @property
    def rule_settings(self) -> dict[str, Any]:
        """What the rule is told besides its name, where it is told anything."""
        told = {"threshold": self.threshold, "language": self.language}
        return {name: value for name, value in told.items() if value is not None}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every question that is asked and every one that may be shown, in order."""
        asked, shown = ([each.content for each in some] for some in (self.questions, self.shots))
        return content_hash([self.rule, *filter(None, [self.rule_settings]), *asked, "shots", *shown])


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


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages whose last one, the assistant's, holds the statements."""

    id: str
    messages: tuple[Message, ...]
    statements: tuple[Statement, ...]
    group: str = ""
    """Name of what must stay together in a split besides itself (a statement and its negation); empty: nothing."""

    @property
    def content(self) -> dict[str, object]:
        """Its fields as plain values; the group only where there is one."""
        return {name: value for name, value in asdict(self).items() if value or name != "group"}


@dataclass(frozen=True)
class StatementSet:
    """Conversations with labelled statements."""

    conversations: tuple[Conversation, ...]
    notes: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    """Why a probe could read the labels off the text ("the system prompt names the lies"); empty: none is known."""
    labelled: bool = True
    """False: no label is known and each stands as False; the set can be scored, not trained nor evaluated on."""
    has_one_class: bool = False
    """Whether all statements that could have been drawn, and not only those that were, have one label."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every conversation, in order, and over whether their labels are known."""
        return content_hash([self.labelled, *(each.content for each in self.conversations)])


def have_one_class(conversations: Iterable[Conversation]) -> bool:
    """Whether all statements are labelled alike."""
    return len({statement.label for talk in conversations for statement in talk.statements}) == 1


def content_hash(rows: Iterable[object]) -> str:
    """SHA-256 (hex) of JSON-serializable rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()
