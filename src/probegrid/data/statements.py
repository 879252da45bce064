"""True and false statements in files, as those of Geometry of Truth (Marks & Tegmark, arXiv 2310.06824).

Knows how files become conversations of one statement each, told by the assistant; which of their columns hold what is
`labelled`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from probegrid.data import hub
from probegrid.data.cells import worded
from probegrid.data.example import Conversation, StatementSet, have_one_class
from probegrid.data.files import data_files_in, is_glob, matching, read_file
from probegrid.data.formats import data_stem
from probegrid.data.labelled import (
    StatementColumns,
    copies_and_contradictions,
    group_column_of,
    single_statement,
    statement_conversations,
    without_outer_space,
)
from probegrid.data.sampling import draw
from probegrid.data.source import existing, is_local, required_path
from probegrid.data.table import Table, cell, text
from probegrid.errors import DataError, closest

__all__ = ["StatementsConfig", "load", "single_statement"]


_NEGATED = "neg_"


@dataclass
class StatementsConfig(StatementColumns):
    """Statements of files: ``num_samples`` of them, drawn over all files; there is no split."""

    path: str | None = None
    """A file, a folder whose data files are all read, a glob, a hub id, or several of these with commas between."""
    subset: str | None = None
    """Configuration of a hub dataset, of which ``dataset.split`` is read."""
    topics: list[str] = field(default_factory=list)
    """Files that are read, by their names without the suffix; empty: all."""
    true_column: str | None = None
    """Column of a row's true answer, where a row holds a question and answers: it makes a statement of each, which stay
    together. null: a row is one statement."""
    false_column: str | None = None
    """Column of its false answer."""
    question_column: str = "question"
    """Column of the question, read where ``true_column`` and ``false_column`` are given."""
    pair_negations: bool = False
    """Keep a statement and its negation on one side of a split: row k of ``cities`` and of ``neg_cities``."""


def load(config: StatementsConfig) -> StatementSet:
    """Read the statements; each has its file's name, without the suffix, as its source.

    Raises:
        DataError: a file is missing, empty or lacks a column, a label is not one, or two files share a name.
    """
    by_topic: dict[str, list[Conversation]] = {}
    notes: list[str] = []
    is_paired = config.true_column is not None or config.false_column is not None
    for name, table in _topics(config).items():
        if is_paired:
            by_topic[name], notes = _answers_of_rows(table, config, name), [*notes, *table.notes]
            continue
        table.require(
            (config.text_column, config.label_column),
            "Rename the columns in the file's first line, or name yours with dataset.text_column=<column> and "
            "dataset.label_column=<column>",
        )
        found, said = statement_conversations(table, config, name, f"{name}/")
        by_topic[name], notes = found, notes + said
    if config.pair_negations:
        by_topic, said = _paired(by_topic)
        notes += said
    conversations = [one for found in by_topic.values() for one in found]
    notes += copies_and_contradictions(conversations)
    drawn, of_draw = draw(conversations, config, "statements", str(config.path))
    return without_outer_space(
        StatementSet(drawn, (*notes, *of_draw), has_one_class=have_one_class(conversations))
    )


def _answers_of_rows(table: Table, config: StatementsConfig, source: str) -> list[Conversation]:
    """A true and a false statement of each row, its question with either answer; both are one group.

    Raises:
        DataError: a key of the two is missing, a column is, or a row lacks a text.
    """
    if config.true_column is None or config.false_column is None:
        raise DataError("dataset.true_column and dataset.false_column belong together; give both.")
    if config.source_column or config.drop_labels:
        raise DataError(
            "dataset.source_column and dataset.drop_labels are of statements that stand in a row each; leave them out "
            "beside dataset.true_column."
        )
    told = ((config.true_column, True), (config.false_column, False))
    group_column = group_column_of(config)
    table.require(
        (config.question_column, config.true_column, config.false_column, *filter(None, [group_column])),
        "Name yours with dataset.question_column, dataset.true_column and dataset.false_column",
    )
    made = []
    for index in range(len(table)):
        row, where = table.row(index), table.where(index)
        group = (
            text(cell(row, group_column, where), f"the group in {where}")
            if group_column
            else f"{source}/{index + 1}"
        )
        asked = worded(cell(row, config.question_column, where), f"the question in {where}").strip()
        for column, label in told:
            answer = worded(cell(row, column, where), f"'{column}' in {where}").strip()
            name = f"{source}/{index + 1}/{str(label).lower()}"
            made.append(single_statement(name, f"{asked} {answer}", label, source, group))
    return made


def _topics(config: StatementsConfig) -> dict[str, Table]:
    """The tables by what they are about, their files' names.

    Raises:
        DataError: two have one name, or a topic is asked for that is not there.
    """
    found: dict[str, tuple[str, Callable[[], Table]]] = {}
    for place, name, read in _sources(config):
        if name in found:
            raise DataError(
                f"{found[name][0]} and {place} have the same name, which is the statements' source; rename one."
            )
        found[name] = place, read
    for topic in config.topics:
        if topic not in found:
            raise DataError(
                f"{config.path} has no topic '{topic}'; {closest(topic, found)} (dataset.topics)."
            )
    return {name: found[name][1]() for name in config.topics or found}


def _paired(
    by_topic: Mapping[str, Sequence[Conversation]],
) -> tuple[dict[str, list[Conversation]], list[str]]:
    """Statements and their negations in one group, where files are each other's row by row; what cannot be paired."""
    paired = {name: list(found) for name, found in by_topic.items()}
    unpaired = []
    for name, negated in by_topic.items():
        base = name.removeprefix(_NEGATED)
        if base == name or base not in by_topic:
            continue
        twins = list(zip(by_topic[base], negated, strict=False))
        if len(by_topic[base]) != len(negated) or any(_label(one) == _label(other) for one, other in twins):
            unpaired.append(name)
            continue
        for topic in (base, name):
            paired[topic] = [
                replace(one, group=f"{base}/{place}") for place, one in enumerate(by_topic[topic], 1)
            ]
    notes = [
        f"{name} is not {name.removeprefix(_NEGATED)} negated row by row, so that they are not kept together"
        for name in unpaired
    ]
    return paired, notes


def _label(conversation: Conversation) -> bool:
    return conversation.statements[0].label


def _sources(config: StatementsConfig) -> Iterator[tuple[str, str, Callable[[], Table]]]:
    """Place, name and reading of every table."""
    path = required_path(config)
    for part in [path] if os.path.exists(path) else [part.strip() for part in path.split(",")]:
        if is_glob(part) or is_local(part):
            for file in _files(part):
                yield str(file), data_stem(file.name), partial(read_file, file)
        else:
            read = partial(_from_hub, part, config.split, config.subset)
            yield part, part.rpartition("/")[2], read


def _from_hub(name: str, split: str, subset: str | None) -> Table:
    return next(hub.read_splits(name, [split], subset))


def _files(part: str) -> Iterator[Path]:
    """The data files of one part of a path."""
    if is_glob(part):
        yield from matching(part)
    elif (local := existing(part)).is_file():
        yield local
    else:
        files = data_files_in(local)
        if not files:
            raise DataError(f"{local} holds no CSV file, nor another data file.")
        yield from files
