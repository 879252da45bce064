"""Statements and their labels in a table of one's own: columns of any name, labels as people write them.

Knows how a row becomes a conversation of one statement, told by the assistant, which rows belong together, and what a
reader should know of the labels: copies, contradictions, words that are none.
"""

from __future__ import annotations

from abc import ABC
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from probegrid.data.cells import is_missing, worded
from probegrid.data.example import Conversation, Message, Statement, StatementSet
from probegrid.data.table import Row, Table, cell, text, truth
from probegrid.errors import DataError
from probegrid.schema import DatasetConfig


@dataclass
class StatementColumns(DatasetConfig, ABC):
    """Which columns of a table hold what."""

    text_column: str = "statement"
    """Column of the statement."""
    label_column: str = "label"
    """Column of its label: true or false, yes or no, 1 or 0."""
    group_column: str | None = None
    """Column of what must stay on one side of a split (an entity, a statement and its negation); null: none."""
    group: str | None = None
    """The same by its short name."""
    source_column: str | None = None
    """Column of the list a statement is from, for ``split=leave_one_source_out``; null: the file, where there are
    several."""
    drop_labels: list[str] = field(default_factory=list)
    """Labels that are neither true nor false, whose rows are left out (``[Neither]``; ``[""]``: those without one); a
    note says how many."""


def statement_conversations(
    table: Table, columns: StatementColumns, source: str = "", id_prefix: str = "", id_column: str | None = None,
    *, labelled: bool = True,
) -> tuple[list[Conversation], list[str]]:  # fmt: skip
    """A conversation a row, and what to know of them.

    Args:
        table: the rows.
        columns: which of its columns hold what.
        source: of every statement, where no column says it.
        id_prefix: what comes before a row's place in its id; empty: the table's own name for its place.
        id_column: holds the ids; None: a row's place is its id.
        labelled: whether there are labels; without them every statement stands as False.

    Raises:
        DataError: a column is missing, a statement is none, or a label is neither true nor false.
    """
    wanted = [group_column_of(columns), columns.source_column, id_column]
    table.require([column for column in wanted if column], "Name another, or leave the key out")
    made, dropped = [], Counter[str]()
    for index in range(len(table)):
        row, where = table.row(index), table.where(index)
        if labelled and (word := _dropped(row, columns, where)) is not None:
            dropped[word] += 1
            continue
        name = f"{id_prefix}{index + 1}" if id_prefix else table.row_id(index)
        if id_column:
            name = text(cell(row, id_column, where), f"the id in {where}")
        made.append(_conversation(row, columns, where, name, source, labelled=labelled))
    if not made:
        raise DataError(
            f"{table.name} has no statement left: dataset.drop_labels drops all {len(table)} rows."
        )
    left_out = [
        f"{count} rows of {table.name} {f'labelled {word}' if word else 'without a label'} are left out "
        "(dataset.drop_labels)"
        for word, count in dropped.items()
    ]
    return made, [*table.notes, *left_out]


class NamesGroups(Protocol):
    """Settings that name the column of groups, by either of its keys."""

    group_column: str | None
    group: str | None


def group_column_of(columns: NamesGroups) -> str | None:
    """The column of groups.

    Raises:
        DataError: the two keys name different ones.
    """
    if columns.group_column and columns.group and columns.group_column != columns.group:
        raise DataError(
            f"dataset.group_column={columns.group_column} and dataset.group={columns.group} are the same setting and "
            "name two columns; give one of them."
        )
    return columns.group_column or columns.group


def without_outer_space(data: StatementSet) -> StatementSet:
    """The same statements without white space around them, which a model reads and words do not show; it is noted."""
    changed = 0
    conversations = []
    for talk in data.conversations:
        (statement,) = talk.statements
        stripped = statement.text.strip()
        if stripped != statement.text:
            changed += 1
            talk = single_statement(statement.id, stripped, statement.label, statement.source, talk.group)
        conversations.append(talk)
    if not changed:
        return data
    note = f"white space around {changed} of {len(conversations)} statements is left out"
    return replace(data, conversations=tuple(conversations), notes=(*data.notes, note))


def single_statement(
    statement_id: str, statement: str, label: bool, source: str = "", group: str = ""
) -> Conversation:
    """A conversation of one message, the assistant's, which is one statement; both have the same id."""
    return Conversation(
        id=statement_id,
        messages=(Message("assistant", statement),),
        statements=(Statement(statement_id, statement, label, 0, len(statement), source),),
        group=group,
    )


def copies_and_contradictions(conversations: Sequence[Conversation]) -> Iterator[str]:
    """What to know of statements that occur several times."""
    labels: dict[str, set[bool]] = {}
    counts: Counter[str] = Counter()
    for conversation in conversations:
        for statement in conversation.statements:
            key = " ".join(statement.text.split()).casefold()
            labels.setdefault(key, set()).add(statement.label)
            counts[key] += 1
    if both := [key for key, found in labels.items() if len(found) > 1]:
        yield (
            f"{len(both)} statements are labelled both true and false ('{both[0][:60]}'): no probe can be right on "
            "every copy"
        )
    if copies := sum(count - 1 for count in counts.values()):
        yield f"{copies} statements are copies of an earlier one; a leakage-free split keeps copies together"


def _dropped(row: Row, columns: StatementColumns, where: str) -> str | None:
    """The label for which a row is left out, if it is one."""
    if not columns.drop_labels:
        return None
    word = _word(cell(row, columns.label_column, where))
    return word if word.lower() in {_word(label).lower() for label in columns.drop_labels} else None


def _word(label: object) -> str:
    """A label as ``drop_labels`` names it; a number that a gap beside it made 2.0 is 2."""
    return "" if label is None else str(label).strip().removesuffix(".0")


def _conversation(
    row: Row, columns: StatementColumns, where: str, name: str, source: str, *, labelled: bool
) -> Conversation:
    statement = worded(cell(row, columns.text_column, where), f"the statement in {where}")
    label = labelled and _label(row, columns, where)
    if columns.source_column:
        source = text(cell(row, columns.source_column, where), f"the source in {where}")
    return single_statement(name, statement, label, source, _group(row, columns, where))


def _label(row: Row, columns: StatementColumns, where: str) -> bool:
    value = cell(row, columns.label_column, where)
    try:
        return truth(value, f"the label in {where}")
    except DataError as error:
        key = f"dataset.drop_labels=[{_word(value)}]" if _word(value) else "'dataset.drop_labels=[\"\"]'"
        raise DataError(
            f"{str(error).rstrip('.')}; rows with another label, or none, are left out by {key}."
        ) from error


def _group(row: Row, columns: StatementColumns, where: str) -> str:
    column = group_column_of(columns)
    value = cell(row, column, where) if column else None
    return "" if is_missing(value) else text(value, f"the group in {where}")
