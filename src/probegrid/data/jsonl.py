"""A user's own file: questions with answers, or statements with labels.

Knows which of the two a file holds: statements where it has their column, each a conversation of one message, else
questions. How rows become either is `own_questions`' and `labelled`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from probegrid.data import squad, trivia_qa
from probegrid.data.cells import joined
from probegrid.data.example import QuestionSet, StatementSet, have_one_class
from probegrid.data.formats import NoRelease
from probegrid.data.labelled import (
    StatementColumns,
    copies_and_contradictions,
    statement_conversations,
    without_outer_space,
)
from probegrid.data.own_questions import QuestionColumns, QuestionReader, id_column_of
from probegrid.data.sampling import draw, question_set
from probegrid.data.source import read_splits
from probegrid.data.table import Row, Table
from probegrid.errors import DataError

OWN_RULE = "squad"
"""Rule of correctness of a file of one's own, unless another is chosen."""


@dataclass
class JsonlConfig(StatementColumns, QuestionColumns):
    """A user's own questions or statements."""

    path: str | None = None
    """Local file, local folder of splits, glob, or hub id."""
    subset: str | None = None
    """Configuration of a hub dataset."""
    records: str | None = None
    """Where in a JSON object the list of rows is: ``questions``, ``data.items``; null: the file is that list."""
    answerable_only: bool = False
    """Leave out the questions that have no answer; a note says how many."""
    labelled: bool = True
    """Whether statements have a column of labels; false only for scoring them, which needs none."""


def load(config: JsonlConfig) -> QuestionSet | StatementSet:
    """Read the file as what it holds: statements where it has their column, else questions.

    Raises:
        DataError: the file is missing, empty or lacks a column, a cell is of another kind, or one id is
            that of two rows.
    """
    splits = read_splits(
        config, (config.split, config.shot_split), config.subset, _of_release, config.records
    )
    table = next(splits)
    is_named = config.text_column != StatementColumns.text_column
    if not config.labelled or is_named:
        mend = "name their column with dataset.text_column=<column>"
        table.require(
            [config.text_column],
            mend.capitalize() if config.labelled else f"dataset.labelled=false is of statements; {mend}",
        )
    if is_named or config.text_column in table.columns:
        return _statement_set(config, table)
    if {"messages", "labels"} <= {*table.columns}:
        raise DataError(
            f"{table.name} holds conversations with labelled statements, which dataset=ntml dataset.path={config.path} "
            "reads."
        )
    tables = [table, *splits]
    readers = [QuestionReader.of(config, table) for table in tables]
    parses = [reader.question for reader in readers]
    found = question_set(config, tables, parses, _rule(config), config.answerable_only)
    notes = joined(reader.notes() for reader in readers)
    return replace(found, notes=(*notes, *found.notes))


def _rule(config: JsonlConfig) -> str:
    return "choice" if config.options_column or config.option_columns else OWN_RULE


def _of_release(release: dict[str, Any]) -> list[Row]:
    """The rows of SQuAD's and TriviaQA's official files, under whatever name they come."""
    for unpack in (squad.unpack, trivia_qa.unpack):
        try:
            return unpack(release)
        except (KeyError, TypeError):
            continue
    raise NoRelease


def _statement_set(config: JsonlConfig, table: Table) -> StatementSet:
    if config.labelled:
        table.require(
            [config.label_column],
            "Name yours with dataset.label_column=<column>; statements without labels can be scored, with "
            "dataset.labelled=false",
        )
    column = config.id_column or id_column_of(table.columns)
    conversations, notes = statement_conversations(table, config, id_column=column, labelled=config.labelled)
    if len({conversation.id for conversation in conversations}) < len(conversations):
        raise DataError(
            f"two statements of {table.name} have the same id; choose another column with dataset.id_column."
        )
    if config.labelled:
        notes += copies_and_contradictions(conversations)
    drawn, of_draw = draw(conversations, config, "statements", table.name)
    is_one = config.labelled and have_one_class(conversations)
    return without_outer_space(
        StatementSet(drawn, (*notes, *of_draw), labelled=config.labelled, has_one_class=is_one)
    )
