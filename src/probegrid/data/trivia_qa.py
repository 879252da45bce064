"""TriviaQA: trivia questions with every alias of their answer (Joshi et al. 2017, arXiv 1705.03551).

Knows the hub's columns and the official release's JSON. The hub's ``rc.nocontext`` may list a question twice,
once for the web and once for Wikipedia; each is asked once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probegrid.data.example import Question, QuestionSet
from probegrid.data.sampling import question_set
from probegrid.data.source import read_splits
from probegrid.data.table import Row, cell, text, texts
from probegrid.errors import DataError
from probegrid.schema import QuestionDatasetConfig

_COLUMNS = ("question", "question_id", "answer")
_WITHHELD = "<unk>"  # the answer of every question of the test split


@dataclass
class TriviaQaConfig(QuestionDatasetConfig):
    """TriviaQA from the hub, a copy of it, or an official JSON file."""

    path: str | None = "mandarjoshi/trivia_qa"
    """Hub id, local file, or local folder."""
    subset: str = "rc.nocontext"
    """Configuration of the hub dataset, also the name of its folder in a local copy."""


def load(config: TriviaQaConfig) -> QuestionSet:
    """Read TriviaQA; the accepted answers of a question are its value and then all aliases.

    Raises:
        DataError: the data is missing, empty, not laid out as TriviaQA, or its answers are withheld.
    """
    tables = list(read_splits(config, (config.split, config.shot_split), config.subset, unpack))
    for table in tables:
        table.require(_COLUMNS, "Files with other columns are read with dataset=jsonl")
    return question_set(config, tables, _question, "trivia_qa")


def _question(row: Row, row_id: str, where: str) -> Question:
    answer = cell(row, "answer", where)
    if not isinstance(answer, Mapping) or not {"value", "aliases"} <= answer.keys():
        raise DataError(
            f"the answer in {where} is {answer!r}; TriviaQA's is {{'value': ..., 'aliases': [...]}}."
        )
    if answer["value"] == _WITHHELD:
        raise DataError(
            f"the answer in {where} is withheld ({_WITHHELD}); dataset.split=validation has answers."
        )
    aliases = answer["aliases"] or []
    names = [answer["value"], *(aliases if isinstance(aliases, list) else [aliases])]
    return Question(
        id=text(cell(row, "question_id", where), f"the id in {where}"),
        text=text(cell(row, "question", where), f"the question in {where}"),
        references=texts(names, f"a name of the answer in {where}"),
    )


def unpack(release: dict[str, Any]) -> list[Row]:
    """The rows of the official release, a single JSON object; raises KeyError or TypeError on another layout."""
    return [
        {
            "question": record["Question"],
            "question_id": record["QuestionId"],
            "answer": {"value": record["Answer"]["Value"], "aliases": record["Answer"]["Aliases"]},
        }
        for record in release["Data"]
    ]
