"""SQuAD: both layouts, paragraphs kept whole, and questions without an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import QuestionSet
from probegrid.data.squad import SquadConfig
from probegrid.errors import DataError


def squad_row(number: int, paragraph: int, answers: list[str]) -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "title": "Rivers",
        "context": f"Paragraph {paragraph} tells of the river number {paragraph}.",
        "question": f"What is asked as number {number}?",
        "answers": {"text": answers, "answer_start": [0] * len(answers)},
    }


def squad_rows(first: int = 0, unanswerable: int = 0) -> list[dict[str, Any]]:
    """Ten paragraphs of four questions; the first question of ``unanswerable`` paragraphs has no answer."""
    return [
        squad_row(
            first + 4 * paragraph + k,
            first + paragraph,
            [] if k == 0 and paragraph < unanswerable else ["river", "river", "the river"],
        )
        for paragraph in range(10)
        for k in range(4)
    ]


def release(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows in the nesting of the official release."""
    paragraphs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        answers = [{"text": answer, "answer_start": 0} for answer in row["answers"]["text"]]
        question = {
            "id": row["id"],
            "question": row["question"],
            "answers": answers,
            "is_impossible": not answers,
        }
        paragraphs.setdefault(row["context"], []).append(question)
    nested = [{"context": context, "qas": questions} for context, questions in paragraphs.items()]
    return {"version": "v2.0", "data": [{"title": "Rivers", "paragraphs": nested}]}


def questions(config: SquadConfig) -> QuestionSet:
    loaded = load(config)
    assert isinstance(loaded, QuestionSet)
    return loaded


@pytest.fixture
def path(write_lines: Any) -> str:
    return str(write_lines("dev.jsonl", squad_rows()))


def test_contract_holds_for_one_file(check_dataset: Any, path: str) -> None:
    check_dataset(SquadConfig(path=path, num_samples=20))


def test_contract_holds_for_a_folder_of_splits(check_dataset: Any, write_lines: Any) -> None:
    write_lines("squad/train.jsonl", squad_rows(first=100))
    folder = write_lines("squad/validation.jsonl", squad_rows()).parent
    check_dataset(SquadConfig(path=str(folder), num_samples=20))


def test_the_official_release_reads_as_the_hub_columns_do(tmp_path: Path, path: str) -> None:
    native = tmp_path / "dev-v2.0.json"
    native.write_text(json.dumps(release(squad_rows())))
    assert (
        questions(SquadConfig(path=str(native))).fingerprint == questions(SquadConfig(path=path)).fingerprint
    )


def test_references_are_the_annotators_answers_once_each(path: str) -> None:
    loaded = questions(SquadConfig(path=path))
    assert loaded.rule == "squad"
    assert {question.references for question in loaded.questions} == {("river", "the river")}


def test_a_group_is_a_paragraph_and_stays_on_one_side(path: str) -> None:
    loaded = questions(SquadConfig(path=path, num_samples=10**6))
    assert len({question.group for question in (*loaded.questions, *loaded.shots)}) == 10
    assert len({(question.group, question.context) for question in loaded.questions}) == 8
    assert len(loaded.shots) == 8, "a fifth of 40 questions: two paragraphs of four"


def test_a_shot_of_another_split_never_shows_an_evaluated_paragraph(write_lines: Any) -> None:
    shared = [squad_row(1000 + k, 0, ["river"]) for k in range(5)]
    write_lines("squad/train.jsonl", shared + squad_rows(first=100))
    folder = write_lines("squad/validation.jsonl", squad_rows()).parent
    loaded = questions(SquadConfig(path=str(folder), num_samples=1))
    assert len(loaded.shots) == 40
    assert not {f"q{1000 + k}" for k in range(5)} & {shot.id for shot in loaded.shots}


def test_unanswerable_questions_are_kept_with_a_note_and_never_shown(write_lines: Any) -> None:
    path = str(write_lines("dev.jsonl", squad_rows(unanswerable=10)))
    loaded = questions(SquadConfig(path=path, num_samples=32))
    assert sum(not question.references for question in loaded.questions) == 8
    assert "8 of the 32 questions have no answer" in loaded.notes
    assert len(loaded.shots) == 6
    assert all(shot.references for shot in loaded.shots)


def test_unanswerable_questions_are_left_out_on_request_with_a_note(write_lines: Any) -> None:
    path = str(write_lines("dev.jsonl", squad_rows(unanswerable=10)))
    kept = questions(SquadConfig(path=path, num_samples=24))
    loaded = questions(SquadConfig(path=path, num_samples=24, answerable_only=True))
    assert all(question.references for question in loaded.questions)
    assert loaded.notes == ("8 of 32 questions have no answer and are left out (answerable_only)",)
    assert loaded.shots == kept.shots


def test_no_question_with_an_answer_is_an_error(write_lines: Any) -> None:
    path = str(write_lines("dev.jsonl", [squad_row(number, number, []) for number in range(10)]))
    with pytest.raises(DataError, match=r"no question with an answer; dataset\.answerable_only=false"):
        load(SquadConfig(path=path, answerable_only=True))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("answers", ["river"], r"the answers in row 3 of .* are \['river'\]; SQuAD's are"),
        ("question", " ", r"the question in row 3 of .* is ' '; a text is expected"),
        ("question", "half \ud83d", r"the question in row 3 of .* a text is expected"),
        ("id", None, r"the id in row 3 of .* is None; a text is expected"),
        ("id", "q0", r"row 3 of .* has the id 'q0' of an earlier row that asks something else"),
    ],
)
def test_a_bad_cell_is_named(write_lines: Any, column: str, value: Any, message: str) -> None:
    rows = squad_rows()
    rows[2][column] = value
    with pytest.raises(DataError, match=message):
        load(SquadConfig(path=str(write_lines("dev.jsonl", rows))))


def test_a_missing_column_is_named_with_those_there_are(write_lines: Any) -> None:
    rows = [{"id": "1", "context": "c", "question": "q", "answer": "a"}]
    with pytest.raises(DataError, match=r"no column 'answers'; did you mean 'answer'\? .*dataset=jsonl"):
        load(SquadConfig(path=str(write_lines("dev.jsonl", rows))))


def test_another_json_object_is_not_the_official_release(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text('{"q1": "river"}')
    with pytest.raises(DataError, match=r"not laid out as the official release: there is no 'data'"):
        load(SquadConfig(path=str(path)))
    path.write_text('{"data": [3]}')
    with pytest.raises(DataError, match="not laid out as the official release: "):
        load(SquadConfig(path=str(path)))
