"""The same contract on extracts of the real sets, where PROBEGRID_DATA names their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import QuestionSet, StatementSet
from probegrid.data.ntml import NtmlConfig
from probegrid.data.squad import SquadConfig
from probegrid.data.statements import StatementsConfig
from probegrid.data.trivia_qa import TriviaQaConfig

DATA = Path(os.environ.get("PROBEGRID_DATA", ""))
pytestmark = pytest.mark.skipif("PROBEGRID_DATA" not in os.environ, reason="PROBEGRID_DATA is not set")

SQUAD = str(DATA / "squad/dev-v1.1-super-bowl-50.json")
TRIVIA_QA = str(DATA / "trivia_qa/validation-200.jsonl")
NTML = str(DATA / "ntml/3T3L_500samples.jsonl")


@pytest.mark.parametrize(
    "config",
    [
        SquadConfig(path=SQUAD),
        TriviaQaConfig(path=TRIVIA_QA, num_samples=100),
        NtmlConfig(path=NTML),
        StatementsConfig(path=str(DATA / "statements")),
    ],
    ids=lambda config: type(config).__name__,
)
def test_contract_holds(check_dataset: Any, config: Any) -> None:
    check_dataset(config)


def test_every_squad_question_is_asked_or_set_aside() -> None:
    loaded = load(SquadConfig(path=SQUAD, num_samples=810))
    assert isinstance(loaded, QuestionSet)
    predictions = json.loads((DATA / "squad/predictions-super-bowl-50.json").read_text())
    read = {question.id for question in (*loaded.questions, *loaded.shots)}
    assert read <= predictions.keys()
    assert len({question.group for question in (*loaded.questions, *loaded.shots)}) == 54
    assert all(
        reference in question.context for question in loaded.questions for reference in question.references
    )


def test_trivia_qa_keeps_every_alias() -> None:
    loaded = load(TriviaQaConfig(path=TRIVIA_QA))
    assert isinstance(loaded, QuestionSet)
    raw = {
        row["question_id"]: row["answer"] for row in map(json.loads, Path(TRIVIA_QA).read_text().splitlines())
    }
    for question in (*loaded.questions, *loaded.shots):
        assert set(question.references) == {alias for alias in raw[question.id]["aliases"] if alias.strip()}


def test_the_official_trivia_qa_record_is_read() -> None:
    loaded = load(TriviaQaConfig(path=str(DATA / "trivia_qa/triviaqa_official_sample.json")))
    assert isinstance(loaded, QuestionSet)
    assert loaded.questions[0].references[:2] == ("Sunset Boulevard", "Sunset Blvd")


def test_ntml_has_three_thousand_statements_half_of_them_true() -> None:
    loaded = load(NtmlConfig(path=NTML, num_samples=500))
    assert isinstance(loaded, StatementSet)
    labels = [
        statement.label for conversation in loaded.conversations for statement in conversation.statements
    ]
    assert (len(labels), sum(labels)) == (3000, 1500)


def test_statements_of_every_file_are_balanced() -> None:
    loaded = load(StatementsConfig(path=str(DATA / "statements"), num_samples=10**6))
    assert isinstance(loaded, StatementSet)
    labels = [
        statement.label for conversation in loaded.conversations for statement in conversation.statements
    ]
    assert (len(labels), sum(labels)) == (7660, 3830)
