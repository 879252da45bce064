"""A user's own file, in every format and under any column names."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from probegrid.data import load
from probegrid.data.example import QuestionSet, StatementSet
from probegrid.data.jsonl import JsonlConfig
from probegrid.errors import DataError

ROWS = [{"question": f"What is {number}?", "answers": f"Number {number}"} for number in range(30)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl" or path.stem == "lines":
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def questions(path: str, **fields: Any) -> QuestionSet:
    loaded = load(JsonlConfig(path=path, **fields))
    assert isinstance(loaded, QuestionSet)
    return loaded


def statements(path: str, **fields: Any) -> StatementSet:
    loaded = load(JsonlConfig(path=path, **fields))
    assert isinstance(loaded, StatementSet)
    return loaded


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.json", "lines.json", "mine.csv", "mine.parquet"])
def test_contract_holds_in_every_format(check_dataset: Any, tmp_path: Path, name: str) -> None:
    check_dataset(JsonlConfig(path=write(tmp_path / name, ROWS), num_samples=20))


def test_every_format_reads_the_same(tmp_path: Path) -> None:
    names = ["mine.jsonl", "mine.json", "lines.json", "mine.csv", "mine.parquet"]
    assert len({questions(write(tmp_path / name, ROWS)).fingerprint for name in names}) == 1


def test_contract_holds_for_statements(check_dataset: Any, tmp_path: Path) -> None:
    rows = [{"statement": f"{number} is odd.", "label": number % 2} for number in range(30)]
    check_dataset(JsonlConfig(path=write(tmp_path / "mine.jsonl", rows), num_samples=20))


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    rows = [{"q": "Who?", "a": ["Ann", "Anna", "Ann"], "key": 7, "passage": "Ann it was."}]
    loaded = questions(
        write(tmp_path / "mine.jsonl", rows),
        question_column="q",
        answers_column="a",
        id_column="key",
        context_column="passage",
        rule="trivia_qa",
    )
    (question,) = loaded.questions
    assert (question.id, question.text, question.references) == ("7", "Who?", ("Ann", "Anna"))
    assert question.context == "Ann it was."
    assert question.group
    assert loaded.rule == "trivia_qa"


def test_columns_id_and_context_are_found_unasked(tmp_path: Path) -> None:
    rows = [{"id": "x", "question": "Who?", "answers": "Ann", "context": "Ann it was."}]
    (question,) = questions(write(tmp_path / "mine.jsonl", rows)).questions
    assert (question.id, question.context) == ("x", "Ann it was.")
    (question,) = questions(write(tmp_path / "blank.jsonl", [rows[0] | {"context": " "}])).questions
    assert (question.context, question.group) == ("", "")


def test_without_ids_the_place_is_the_id(tmp_path: Path) -> None:
    assert {question.id for question in questions(write(tmp_path / "mine.jsonl", ROWS[:2])).questions} <= {
        "row-1",
        "row-2",
    }


def test_splits_without_ids_do_not_clash(check_dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set/validation.jsonl", ROWS)
    shots = [{"question": f"What was {number}?", "answers": "x"} for number in range(30)]
    write(tmp_path / "set/train.csv", shots)
    check_dataset(JsonlConfig(path=str(tmp_path / "set"), num_samples=20))
    assert len(questions(str(tmp_path / "set")).shots) == 30


def test_numbers_are_answers_a_gap_is_none_and_an_empty_list_is_no_answer(tmp_path: Path) -> None:
    answers: list[Any] = [42, 0, None, "", [], float("nan"), 7.0]
    rows = [{"id": k, "question": f"Q{k}", "answers": answer} for k, answer in enumerate(answers)]
    loaded = questions(write(tmp_path / "mine.json", rows))
    found = {question.id: question.references for question in (*loaded.questions, *loaded.shots)}
    expected = {"0": ("42",), "1": ("0",), "4": (), "6": ("7",)}
    assert found == {name: expected[name] for name in found}
    assert len(loaded.questions) == 3
    assert any("3 of 7 rows of" in note and "are left out" in note for note in loaded.notes)


def test_one_answer_a_row_is_joined(tmp_path: Path) -> None:
    rows = [{"id": "1", "question": "Who?", "answers": answer} for answer in ("Ann", "Anna", "Ann")]
    loaded = questions(write(tmp_path / "mine.csv", rows))
    assert loaded.questions[0].references == ("Ann", "Anna")
    assert "2 rows of" in loaded.notes[0]


@pytest.mark.parametrize("field", ["question_column", "answers_column", "id_column", "context_column"])
def test_a_missing_column_says_how_to_map(tmp_path: Path, field: str) -> None:
    message = rf"has no column 'answer'; did you mean 'answers'\? .*dataset\.{field}=<column>"
    with pytest.raises(DataError, match=message):
        load(JsonlConfig(path=write(tmp_path / "mine.jsonl", ROWS), **{field: "answer"}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q"}, r"row 31 of .* has no 'answers'; it has: question"),
        (
            {"question": "Q", "answers": {"short": "x"}},
            r"an answer in row 31 of .* is \{'short': 'x'\}; a text .*dataset\.answers_column=answers\.<one of short>",
        ),
        (
            {"question": "Q", "answers": ["x", True]},
            r"an answer in row 31 of .* is True; a text .*dataset\.booleans=yes_no",
        ),
        ({"question": "Q", "answers": "['x', y']"}, r"a list that cannot be read; .*dataset\.as_text=true"),
        ({"question": True, "answers": "x"}, r"the question in row 31 of .* is True; a text"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(JsonlConfig(path=write(tmp_path / "mine.jsonl", [*ROWS, row])))


def test_labels_are_asked_for_unless_the_statements_are_only_scored(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"statement": "Snow is white."}, {"statement": "Snow is black."}])
    with pytest.raises(DataError, match=r"no column 'label'.*can be scored, with dataset\.labelled=false"):
        load(JsonlConfig(path=path))
    with pytest.raises(DataError, match=r"no column 'claim'.*name their column with dataset\.text_column="):
        statements(path, labelled=False, text_column="claim")
    loaded = statements(path, labelled=False)
    assert not loaded.labelled
    assert {conversation.messages[0].content for conversation in loaded.conversations} == {
        "Snow is white.",
        "Snow is black.",
    }


def test_a_named_column_of_statements_makes_them_statements(tmp_path: Path) -> None:
    rows = [{"claim": {"text": f"S{n}"}, "label": n} for n in range(2)]
    path = write(tmp_path / "mine.jsonl", rows)
    loaded = statements(path, text_column="claim.text")
    assert {talk.messages[0].content for talk in loaded.conversations} == {"S0", "S1"}
    with pytest.raises(
        DataError, match=r"no column 'clam'; did you mean 'claim'.*dataset\.text_column=<column>"
    ):
        load(JsonlConfig(path=path, text_column="clam"))


def test_unknown_labels_are_not_the_same_content_as_false_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"statement": "Snow is black.", "label": False}])
    assert statements(path).labelled
    assert statements(path).fingerprint != statements(path, labelled=False).fingerprint


def test_one_missing_label_is_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"statement": "A.", "label": 1}, {"statement": "B.", "label": None}]
    with pytest.raises(DataError, match=r"the label in row 2 of .* is None; a label is 1 or true"):
        load(JsonlConfig(path=write(tmp_path / "mine.jsonl", rows)))


def test_two_statements_of_one_id_are_refused(tmp_path: Path) -> None:
    rows = [{"id": 1, "statement": "A.", "label": 1}, {"id": 1, "statement": "B.", "label": 0}]
    with pytest.raises(DataError, match=r"have the same id; choose another column with dataset\.id_column"):
        load(JsonlConfig(path=write(tmp_path / "mine.jsonl", rows)))


def test_a_path_is_asked_for() -> None:
    with pytest.raises(DataError, match="dataset=jsonl has no data of its own"):
        load(JsonlConfig())
