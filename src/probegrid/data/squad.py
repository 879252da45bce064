"""SQuAD 1.1 and 2.0: questions on paragraphs of Wikipedia (Rajpurkar et al., arXiv 1606.05250, 1806.03822).

Knows the hub's columns and the official release's nested JSON. A question's group is its paragraph (a hash of
it): questions on one paragraph are not independent, and no few-shot example shows that of an evaluated one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probegrid.data.example import Question, QuestionSet
from probegrid.data.sampling import paragraph_group, question_set
from probegrid.data.source import read_splits
from probegrid.data.table import Row, cell, text, texts
from probegrid.errors import DataError
from probegrid.schema import QuestionDatasetConfig

_COLUMNS = ("id", "context", "question", "answers")


@dataclass
class SquadConfig(QuestionDatasetConfig):
    """SQuAD from the hub (``rajpurkar/squad``, ``rajpurkar/squad_v2``), a copy of it, or an official file."""

    path: str | None = "rajpurkar/squad"
    """Hub id, local file, or local folder."""
    answerable_only: bool = False
    """Leave out the questions of 2.0 that have no answer; a note says how many."""


def load(config: SquadConfig) -> QuestionSet:
    """Read SQuAD; the accepted answers of a question are its annotators', repeats left out.

    Raises:
        DataError: the data is missing, empty, or not laid out as SQuAD.
    """
    tables = list(read_splits(config, (config.split, config.shot_split), unpack=unpack))
    for table in tables:
        table.require(_COLUMNS, "Files with other columns are read with dataset=jsonl")
    return question_set(config, tables, _question, "squad", config.answerable_only)


def _question(row: Row, row_id: str, where: str) -> Question:
    answers = cell(row, "answers", where)
    if not isinstance(answers, Mapping) or "text" not in answers:
        raise DataError(
            f"the answers in {where} are {answers!r}; SQuAD's are {{'text': [...], 'answer_start': [...]}}."
        )
    context = text(cell(row, "context", where), f"the context in {where}")
    return Question(
        id=text(cell(row, "id", where), f"the id in {where}"),
        text=text(cell(row, "question", where), f"the question in {where}"),
        references=texts(answers["text"], f"an answer in {where}"),
        context=context,
        group=paragraph_group(context),
    )


def unpack(release: dict[str, Any]) -> list[Row]:
    """The rows of the official release, a single JSON object; raises KeyError or TypeError on another layout.

    Raises:
        DataError: it holds QuAC's dialogs, whose questions mean nothing without those before them.
    """
    if any(
        "followup" in one
        for article in release["data"]
        for part in article["paragraphs"]
        for one in part["qas"]
    ):
        raise DataError("these are QuAC's dialogs, whose turns dataset=quac reads one after another.")
    return [
        {
            "id": question["id"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {"text": [answer["text"] for answer in question["answers"]]},
        }
        for article in release["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
