"""The same contract on extracts of the real sets, where PROBEGRID_DATA names their folder."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import Question, QuestionSet, StatementSet
from probegrid.data.jsonl import JsonlConfig
from probegrid.data.ntml import NtmlConfig
from probegrid.data.published import PublishedConfig
from probegrid.data.squad import SquadConfig
from probegrid.data.statements import StatementsConfig
from probegrid.data.trivia_qa import TriviaQaConfig
from probegrid.errors import DataError

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


@pytest.mark.parametrize(
    "name",
    sorted(str(file.relative_to(DATA)) for file in DATA.glob("sets/statements/**/*.csv")),
)
def test_every_file_of_statements_is_read(name: str) -> None:
    columns: dict[str, Any] = (
        {"text_column": "examples", "drop_labels": ["Neither"]} if name.endswith("common_claim.csv") else {}
    )
    loaded = load(StatementsConfig(path=str(DATA / name), num_samples=10**6, **columns))
    assert isinstance(loaded, StatementSet)
    raw = list(csv.DictReader((DATA / name).read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    labels = [row["label"] for row in raw if row["label"] != "Neither"]
    assert len(loaded.conversations) == len(labels)
    true = sum(talk.statements[0].label for talk in loaded.conversations)
    assert true == sum(label.lower() in ("1", "1.0", "true") for label in labels)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "sets/squad_v2/squad2_repeated_id.json",
            {},
            r"has the id '5733be284776f41900661182' of an earlier row",
        ),
        ("sets/quac/quac_sample.json", {}, r"dataset=quac reads"),
        ("sets/pubmedqa/ori_pqal.json", {}, r"dataset\.answers_column=<column>"),
        ("ntml/3T3L_20samples.jsonl", {}, r"dataset=ntml dataset\.path="),
        (
            "sets/statements/common_claim.csv",
            {"text_column": "examples"},
            r"dataset\.drop_labels=\[Neither\]",
        ),
    ],
)
def test_what_is_refused_says_what_mends_it(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(JsonlConfig(path=str(DATA / name), **fields))


def test_halueval_is_statements_as_well() -> None:
    path = str(DATA / "sets/halueval/qa_one-turn_data.json")
    columns = {"true_column": "right_answer", "false_column": "hallucinated_answer"}
    loaded = load(StatementsConfig(path=path, num_samples=10**6, **columns))
    assert isinstance(loaded, StatementSet)
    labels = [talk.statements[0].label for talk in loaded.conversations]
    assert (len(labels), sum(labels), len({talk.group for talk in loaded.conversations})) == (200, 100, 100)


def test_truthful_qa_has_the_options_of_both_its_tasks() -> None:
    path = DATA / "sets/truthfulqa/mc_task.json"
    loaded = load(PublishedConfig(layout="truthful_qa", path=str(path), num_samples=10**6))
    assert isinstance(loaded, QuestionSet)
    raw = {row["question"]: row for row in json.loads(path.read_text())}
    for one in (*loaded.questions, *loaded.shots):
        right = one.options["ABCDEFGHIJKLM".index(one.references[0])]
        true = {text: text == right for text in one.options} | dict(one.more_options)
        assert true == {text: bool(mark) for text, mark in raw[one.text]["mc2_targets"].items()}


def test_files_of_the_sets_are_read_as_ones_own() -> None:
    """SQuAD 2.0, PubMedQA, SVAMP and TriviaQA's release through the door of one's own files."""
    squad2 = questions("sets/squad_v2/squad2.json")
    assert sum(not one.references for one in squad2) >= 1
    pubmed = questions(
        "sets/pubmedqa/ori_pqal.json", answers_column="final_decision", context_column="CONTEXTS"
    )
    assert len(pubmed) == 60
    assert Counter(one.references[0] for one in pubmed) == {"yes": 34, "no": 18, "maybe": 8}
    svamp = questions("sets/svamp/SVAMP.json")
    assert len(svamp) >= 115  # examples of one wording are shown once
    assert {one.references[0] for one in svamp if one.id == "chal-1"} == {"51"}
    trivia = questions("sets/trivia_qa/native/web-dev.json")
    assert ("David Seville",) in {one.references for one in trivia}


def questions(name: str, **fields: Any) -> list[Question]:
    loaded = load(JsonlConfig(path=str(DATA / name), **fields))
    assert isinstance(loaded, QuestionSet)
    return [*loaded.questions, *loaded.shots]
