"""TriviaQA: both layouts, the order of the accepted answers, repeated questions, withheld answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import QuestionSet
from probegrid.data.trivia_qa import TriviaQaConfig
from probegrid.errors import DataError


def trivia_row(
    number: int, value: str = "Oslo", aliases: tuple[str, ...] = ("Christiania", "Oslo")
) -> dict[str, Any]:
    return {
        "question": f"Which town is number {number}?",
        "question_id": f"tc_{number}",
        "question_source": "",
        "answer": {"value": value, "aliases": list(aliases), "normalized_value": value.lower()},
    }


def questions(path: Path, **fields: Any) -> QuestionSet:
    loaded = load(TriviaQaConfig(path=str(path), **fields))
    assert isinstance(loaded, QuestionSet)
    return loaded


def test_contract_holds_for_one_file(check_dataset: Any, write_lines: Any) -> None:
    path = write_lines("validation.jsonl", [trivia_row(number) for number in range(50)])
    check_dataset(TriviaQaConfig(path=str(path), num_samples=30))


def test_contract_holds_for_a_copy_of_the_hub_repository(check_dataset: Any, write_lines: Any) -> None:
    write_lines("trivia/rc/validation.jsonl", [trivia_row(0)])
    write_lines("trivia/rc.nocontext/train.jsonl", [trivia_row(number) for number in range(100, 120)])
    write_lines("trivia/rc.nocontext/validation.jsonl", [trivia_row(number) for number in range(50)])
    path = write_lines("trivia/README.jsonl.txt", []).parent
    check_dataset(TriviaQaConfig(path=str(path), num_samples=30))


def test_references_are_the_value_and_then_the_aliases(write_lines: Any) -> None:
    loaded = questions(write_lines("dev.jsonl", [trivia_row(0)]))
    assert loaded.rule == "trivia_qa"
    assert loaded.questions[0].references == ("Oslo", "Christiania")


def test_a_blank_value_leaves_the_aliases(write_lines: Any) -> None:
    loaded = questions(write_lines("dev.jsonl", [trivia_row(0, value="", aliases=("", "1997"))]))
    assert loaded.questions[0].references == ("1997",)


def test_the_official_release_reads_as_the_hub_columns_do(tmp_path: Path, write_lines: Any) -> None:
    rows = [trivia_row(number) for number in range(20)]
    records = [
        {
            "Question": row["question"],
            "QuestionId": row["question_id"],
            "Answer": {
                "Value": row["answer"]["value"],
                "Aliases": row["answer"]["aliases"],
                "Type": "FreeForm",
            },
        }
        for row in rows
    ]
    native = tmp_path / "web-dev.json"
    native.write_text(json.dumps({"Data": records, "Domain": "Web", "VerifiedEval": False, "Version": 1.0}))
    assert questions(native).fingerprint == questions(write_lines("dev.jsonl", rows)).fingerprint


def test_a_question_listed_twice_is_asked_once_with_all_its_answers(write_lines: Any) -> None:
    rows = [trivia_row(number) for number in range(10)]
    rows += [trivia_row(number, value="Kristiania") for number in range(10)]
    loaded = questions(write_lines("dev.jsonl", rows))
    assert len(loaded.questions) + len(loaded.shots) == 10
    assert {question.references for question in loaded.questions} == {("Oslo", "Christiania", "Kristiania")}
    assert loaded.notes[0].startswith("10 rows of ")
    assert loaded.notes[0].endswith("repeat an earlier question and are joined with it")


def test_a_question_of_both_splits_is_no_shot(write_lines: Any) -> None:
    repeated = [{**trivia_row(number), "question_id": f"other_{number}"} for number in range(50)]
    for row in repeated:
        row["question"] = row["question"].upper().replace("?", " ?!")
    write_lines("trivia/train.jsonl", [*repeated, trivia_row(3), trivia_row(77), trivia_row(77)])
    folder = write_lines("trivia/validation.jsonl", [trivia_row(number) for number in range(50)]).parent
    assert [shot.id for shot in questions(folder, num_samples=1).shots] == ["tc_77"]


def test_an_id_is_shown_once_and_never_if_it_is_evaluated(write_lines: Any) -> None:
    reworded = [trivia_row(number) | {"question": f"What is {number}?"} for number in (3, 77)]
    write_lines("trivia/train.jsonl", [*reworded, trivia_row(77)])
    folder = write_lines("trivia/validation.jsonl", [trivia_row(number) for number in range(50)]).parent
    assert [shot.id for shot in questions(folder).shots] == ["tc_77"]


def test_withheld_answers_are_refused(write_lines: Any) -> None:
    path = write_lines("test.jsonl", [trivia_row(0, value="<unk>", aliases=())])
    with pytest.raises(
        DataError, match=r"row 1 of .* is withheld \(<unk>\); dataset\.split=validation has answers"
    ):
        load(TriviaQaConfig(path=str(path)))


def test_another_kind_of_answer_is_refused(write_lines: Any) -> None:
    path = write_lines("dev.jsonl", [trivia_row(0) | {"answer": "Oslo"}])
    with pytest.raises(DataError, match=r"the answer in row 1 of .* is 'Oslo'; TriviaQA's is"):
        load(TriviaQaConfig(path=str(path)))
