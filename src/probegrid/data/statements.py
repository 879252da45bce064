"""True and false statements in CSV files, as those of Geometry of Truth (Marks & Tegmark, arXiv 2310.06824).

Knows the columns ``statement`` and ``label``, and how files become conversations of one statement each, told
by the assistant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from probegrid.data.example import Conversation, Message, Statement, StatementSet
from probegrid.data.files import read_file
from probegrid.data.sampling import draw
from probegrid.data.source import existing, required_path
from probegrid.data.table import Row, Table, cell, text, truth
from probegrid.errors import DataError
from probegrid.schema import DatasetConfig


@dataclass
class StatementsConfig(DatasetConfig):
    """Statements of CSV files: ``num_samples`` of them, drawn over all files; there is no split."""

    path: str | None = None
    """A file, a folder whose CSV files are all read, or several of these with commas between them."""
    group: str | None = None
    """Column whose equal values stay on one side of a split (``city``), as what statements are about does."""


def load(config: StatementsConfig) -> StatementSet:
    """Read the statements; each has its file's name, without the suffix, as its source.

    Raises:
        DataError: a file is missing, empty or lacks a column, a label is not one, or two files share a name.
    """
    conversations: list[Conversation] = []
    read: dict[str, Path] = {}
    for path in _files(required_path(config)):
        if first := read.get(path.stem):
            raise DataError(
                f"{first} and {path} have the same name, which is the statements' source; rename one."
            )
        read[path.stem] = path
        table = read_file(path)
        table.require(("statement", "label"), "Rename the columns in the file's first line")
        if config.group:
            table.require([config.group], "Name a column that is there with dataset.group=<column>")
        conversations += _conversations(table, path.stem, config.group)
    drawn, notes = draw(conversations, config, "statements", str(config.path))
    return without_outer_space(StatementSet(drawn, notes))


def single_statement(
    statement_id: str, statement: str, label: bool, source: str = "", group: str = ""
) -> Conversation:
    """A conversation of one message, the assistant's, which is one statement; both have the same id."""
    return Conversation(
        id=statement_id,
        messages=(Message("assistant", statement),),
        statements=(Statement(statement_id, statement, label, 0, len(statement), source, group),),
    )


def without_outer_space(data: StatementSet) -> StatementSet:
    """The same statements without white space around them, which a model reads and words do not show; it is noted."""
    changed = 0
    conversations = []
    for talk in data.conversations:
        (statement,) = talk.statements
        stripped = statement.text.strip()
        if stripped != statement.text:
            changed += 1
            talk = single_statement(
                statement.id, stripped, statement.label, statement.source, statement.group
            )
        conversations.append(talk)
    if not changed:
        return data
    note = f"white space around {changed} of {len(conversations)} statements is left out"
    return replace(data, conversations=tuple(conversations), notes=(*data.notes, note))


def _conversations(table: Table, source: str, group: str | None) -> Iterator[Conversation]:
    for index in range(len(table)):
        row, where = table.row(index), table.where(index)
        statement = text(cell(row, "statement", where), f"the statement in {where}")
        label = truth(cell(row, "label", where), f"the label in {where}")
        yield single_statement(f"{source}/{index + 1}", statement, label, source, group_of(row, group, where))


def group_of(row: Row, column: str | None, where: str) -> str:
    """The group that a row names in a column; empty without a column or a value."""
    value = cell(row, column, where) if column else None
    return "" if value is None else str(value).strip()


def _files(path: str) -> Iterator[Path]:
    parts = [path] if os.path.exists(path) else [part.strip() for part in path.split(",")]
    for local in map(existing, parts):
        if local.is_file():
            yield local
            continue
        files = sorted(local.glob("*.csv"))
        if not files:
            raise DataError(f"{local} holds no CSV file.")
        yield from files
