"""True and false statements in files, as those of Geometry of Truth (Marks & Tegmark, arXiv 2310.06824).

Knows how files become conversations of one statement each, told by the assistant; which of their columns hold what is
`labelled`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probegrid.data.example import Conversation, StatementSet, have_one_class
from probegrid.data.files import is_data_file, is_glob, matching, read_file
from probegrid.data.formats import data_stem
from probegrid.data.labelled import (
    StatementColumns,
    copies_and_contradictions,
    single_statement,
    statement_conversations,
)
from probegrid.data.sampling import draw
from probegrid.data.source import existing, required_path
from probegrid.errors import DataError

__all__ = ["StatementsConfig", "load", "single_statement"]


@dataclass
class StatementsConfig(StatementColumns):
    """Statements of files: ``num_samples`` of them, drawn over all files; there is no split."""

    path: str | None = None
    """A file, a folder whose data files are all read, a glob, or several of these with commas between them."""


def load(config: StatementsConfig) -> StatementSet:
    """Read the statements; each has its file's name, without the suffix, as its source.

    Raises:
        DataError: a file is missing, empty or lacks a column, a label is not one, or two files share a name.
    """
    conversations: list[Conversation] = []
    notes: list[str] = []
    read: dict[str, Path] = {}
    for path in _files(required_path(config)):
        name = data_stem(path.name)
        if first := read.get(name):
            raise DataError(
                f"{first} and {path} have the same name, which is the statements' source; rename one."
            )
        read[name] = path
        table = read_file(path)
        table.require(
            (config.text_column, config.label_column),
            "Rename the columns in the file's first line, or name yours with dataset.text_column=<column> and "
            "dataset.label_column=<column>",
        )
        found, said = statement_conversations(table, config, name, f"{name}/")
        conversations, notes = conversations + found, notes + said
    notes += copies_and_contradictions(conversations)
    drawn, of_draw = draw(conversations, config, "statements", str(config.path))
    return StatementSet(drawn, (*notes, *of_draw), has_one_class=have_one_class(conversations))


def _files(path: str) -> Iterator[Path]:
    parts = [path] if os.path.exists(path) else [part.strip() for part in path.split(",")]
    for part in parts:
        if is_glob(part):
            yield from matching(part)
            continue
        local = existing(part)
        if local.is_file():
            yield local
            continue
        files = sorted(
            entry
            for entry in local.iterdir()
            if is_data_file(entry.name) and not entry.name.startswith(".") and entry.is_file()
        )
        if not files:
            raise DataError(f"{local} holds no CSV file, nor another data file.")
        yield from files
