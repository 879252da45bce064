"""A user's own file: questions with answers, or statements with labels.

Knows how columns of any name map onto questions. A file with a column ``statement`` holds statements, each a
conversation of one message; any other holds questions. Reads JSON lines, a JSON array, parquet, and CSV,
which has one answer a row; rows with one id and one question are joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from probegrid.data.example import Conversation, Question, QuestionSet, StatementSet
from probegrid.data.sampling import draw, paragraph_group, question_set
from probegrid.data.source import read_splits
from probegrid.data.statements import group_of, single_statement, without_outer_space
from probegrid.data.table import Row, Table, cell, text, texts, truth
from probegrid.errors import DataError
from probegrid.schema import QuestionDatasetConfig

OWN_RULE = "squad"
"""Rule of correctness of a file of one's own, unless another is chosen."""


@dataclass
class JsonlConfig(QuestionDatasetConfig):
    """A user's own questions or statements."""

    path: str | None = None
    """Local file, local folder of splits, or hub id."""
    subset: str | None = None
    """Configuration of a hub dataset."""
    question_column: str = "question"
    """Column of the question."""
    answers_column: str = "answers"
    """Column of the accepted answers: a text, or a list whose first few-shot examples show; empty: none."""
    id_column: str | None = None
    """Column of the id; null: ``id`` where there is one, else the row's place. Statements too."""
    context_column: str | None = None
    """Column of the paragraph that holds the answer; null: ``context`` where there is one, else none."""
    group: str | None = None
    """Column whose equal values stay together in a split and in resamples; null: what shares a context."""
    answerable_only: bool = False
    """Leave out the questions that have no answer; a note says how many."""
    labelled: bool = True
    """Whether statements have a column ``label``; false only for scoring them, which needs none."""


def load(config: JsonlConfig) -> QuestionSet | StatementSet:
    """Read the file as what it holds: statements where it has a column ``statement``, else questions.

    Raises:
        DataError: the file is missing, empty or lacks a column, a cell is of another kind, or one id is
            that of two rows.
    """
    splits = read_splits(config, (config.split, config.shot_split), config.subset)
    table = next(splits)
    if "statement" in table.columns:
        return _statement_set(config, table)
    tables = [table, *splits]
    for table in tables:
        for field in ("question_column", "answers_column", "id_column", "context_column", "group"):
            if column := getattr(config, field):
                table.require([column], f"Name yours with dataset.{field}=<column>")
    return question_set(config, tables, partial(_question, config), OWN_RULE, config.answerable_only)


def _question(config: JsonlConfig, row: Row, row_id: str, where: str) -> Question:
    asked = text(cell(row, config.question_column, where), f"the question in {where}")
    context = _context(config, row, where)
    return Question(
        id=_id(config, row, row_id, where),
        text=asked,
        references=texts(cell(row, config.answers_column, where), f"an answer in {where}"),
        context=context,
        group=group_of(row, config.group, where) or paragraph_group(context),
    )


def _id(config: JsonlConfig, row: Row, row_id: str, where: str) -> str:
    column = config.id_column or ("id" if "id" in row else None)
    return text(cell(row, column, where), f"the id in {where}") if column else row_id


def _context(config: JsonlConfig, row: Row, where: str) -> str:
    value = cell(row, config.context_column, where) if config.context_column else row.get("context")
    return "" if value is None or not str(value).strip() else text(value, f"the context in {where}")


def _statement_set(config: JsonlConfig, table: Table) -> StatementSet:
    if config.labelled:
        table.require(["label"], "Statements without labels can be scored, with dataset.labelled=false")
    if config.group:
        table.require([config.group], "Name a column that is there with dataset.group=<column>")
    conversations = list(_statements(config, table))
    if len({conversation.id for conversation in conversations}) < len(conversations):
        raise DataError(
            f"two statements of {table.name} have the same id; choose another column with dataset.id_column."
        )
    drawn, notes = draw(conversations, config, "statements", table.name)
    return without_outer_space(StatementSet(drawn, notes, labelled=config.labelled))


def _statements(config: JsonlConfig, table: Table) -> Iterator[Conversation]:
    for index in range(len(table)):
        row, where = table.row(index), table.where(index)
        statement = text(cell(row, "statement", where), f"the statement in {where}")
        label = config.labelled and truth(cell(row, "label", where), f"the label in {where}")
        yield single_statement(
            _id(config, row, table.row_id(index), where),
            statement,
            label,
            group=group_of(row, config.group, where),
        )
