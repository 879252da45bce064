"""Statements in files of one's own: columns of any name, labels as people write them, what is to be known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from probegrid.cell.examples import check_both_classes, examples_of_statements
from probegrid.data import load
from probegrid.data.example import QuestionSet, StatementSet, have_one_class
from probegrid.data.jsonl import JsonlConfig
from probegrid.data.ntml import NtmlConfig
from probegrid.data.statements import StatementsConfig
from probegrid.errors import DataError


def statements(config: Any) -> StatementSet:
    loaded = load(config)
    assert isinstance(loaded, StatementSet)
    return loaded


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    frame = pd.DataFrame(rows)
    {".csv": frame.to_csv, ".parquet": frame.to_parquet, ".json": frame.to_json}[path.suffix](path)
    return str(path)


@pytest.mark.parametrize(
    "true", ["true", "TRUE", " True ", "yes", "Yes ", "1", "1.0", " 1", 1, 1.0, True, "y", "t"]
)
@pytest.mark.parametrize("dataset", [StatementsConfig, JsonlConfig])
def test_labels_as_people_write_them(tmp_path: Path, true: Any, dataset: Any) -> None:
    false = {"true": "false", "yes": "no", "1": "0", "1.0": "0.0", "y": "n", "t": "f"}[
        str(true).strip().lower()
    ]
    path = tmp_path / "a.csv"
    path.write_text(f"statement,label\nSnow is white.,{true}\nSnow is black.,{false}\n")
    labels = {
        talk.statements[0].text: talk.statements[0].label
        for talk in statements(dataset(path=str(path))).conversations
    }
    assert labels == {"Snow is white.": True, "Snow is black.": False}


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.json"])
@pytest.mark.parametrize("dataset", [StatementsConfig, JsonlConfig])
def test_columns_of_any_name(tmp_path: Path, name: str, dataset: Any) -> None:
    rows = [
        {
            "claim": f"Claim {n}.",
            "is_true": n % 2 == 0,
            "twin": f"pair {n // 2}",
            "list": "ab"[n % 2],
            "x": None,
        }
        for n in range(8)
    ]
    columns = {
        "text_column": "claim",
        "label_column": "is_true",
        "group_column": "twin",
        "source_column": "list",
    }
    found = statements(dataset(path=write(tmp_path / name, rows), **columns))
    assert {talk.statements[0].source for talk in found.conversations} == {"a", "b"}
    examples = examples_of_statements(found)
    for text, group in zip(examples.texts, examples.conversations, strict=True):
        assert group == f"pair {int(text.removeprefix('Claim ').rstrip('.')) // 2}"
    with pytest.raises(DataError, match=r"no column 'twinn'; did you mean 'twin'"):
        load(dataset(path=str(tmp_path / name), **columns | {"group_column": "twinn"}))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.json"])
@pytest.mark.parametrize("dataset", [StatementsConfig, JsonlConfig])
def test_the_column_of_groups_has_two_names(tmp_path: Path, name: str, dataset: Any) -> None:
    rows = [{"statement": f"S{n}", "label": n % 2, "g": f"pair {n // 2}", "h": n} for n in range(8)]
    path = write(tmp_path / name, rows)
    long, short = (statements(dataset(path=path, **{key: "g"})) for key in ("group_column", "group"))
    assert long.conversations == short.conversations
    assert long.fingerprint == short.fingerprint
    assert {talk.group for talk in short.conversations} == {f"pair {n}" for n in range(4)}
    assert statements(dataset(path=path, group="g", group_column="g")).fingerprint == short.fingerprint
    with pytest.raises(
        DataError, match=r"dataset\.group_column=g and dataset\.group=h .* name two columns; give one of them"
    ):
        load(dataset(path=path, group_column="g", group="h"))


def test_questions_have_the_two_names_of_the_column_of_groups_as_well(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n}?", "answers": f"A{n}", "g": f"pair {n // 2}", "h": n} for n in range(8)]
    path = write(tmp_path / "a.csv", rows)
    long, short = (load(JsonlConfig(path=path, **{key: "g"})) for key in ("group_column", "group"))
    assert isinstance(long, QuestionSet)
    assert isinstance(short, QuestionSet)
    assert long.fingerprint == short.fingerprint
    assert {one.group for one in (*short.questions, *short.shots)} == {f"pair {n}" for n in range(4)}
    with pytest.raises(DataError, match=r"name two columns"):
        load(JsonlConfig(path=path, group_column="g", group="h"))


def test_a_group_is_a_part_of_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"statement": f"S{n}", "label": n % 2, "g": n // 2} for n in range(4)])
    assert (
        statements(JsonlConfig(path=path)).fingerprint
        != statements(JsonlConfig(path=path, group_column="g")).fingerprint
    )


def test_a_third_label_is_refused_with_the_key_that_drops_it(tmp_path: Path) -> None:
    labels = ["True", "False", "Neither", "Neither", "True"]
    path = write(
        tmp_path / "a.csv", [{"examples": f"E{n}", "label": label} for n, label in enumerate(labels)]
    )
    with pytest.raises(DataError, match=r"is 'Neither'; .*dataset\.drop_labels=\[Neither\]"):
        load(StatementsConfig(path=path, text_column="examples"))
    found = statements(StatementsConfig(path=path, text_column="examples", drop_labels=["neither"]))
    assert len(found.conversations) == 3
    assert any("2 rows of" in note and "labelled Neither are left out" in note for note in found.notes)


@pytest.mark.parametrize(("label", "named"), [(None, '""'), (2.0, "2"), (-1, "-1")])
def test_rows_of_other_labels_or_none_can_be_left_out(tmp_path: Path, label: Any, named: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"statement": "S", "label": one}) for one in (label, 1, 0)))
    with pytest.raises(DataError, match=rf"dataset\.drop_labels=\[{named}\]"):
        load(JsonlConfig(path=str(path)))
    found = statements(JsonlConfig(path=str(path), drop_labels=[named.strip('"')]))
    assert len(found.conversations) == 2
    assert any("1 rows of" in note and "are left out" in note for note in found.notes)


def test_classes_are_labels_by_their_names(tmp_path: Path) -> None:
    """``datasets`` numbers a class by its place: with ``true`` first, a 0 is a true statement."""
    features = datasets.Features(
        statement=datasets.Value("string"), label=datasets.ClassLabel(names=["true", "false"])
    )
    made = datasets.Dataset.from_dict({"statement": ["T", "F"], "label": [0, 1]}, features=features)
    made.to_parquet(str(tmp_path / "a.parquet"))
    for config in (JsonlConfig, StatementsConfig):
        found = statements(config(path=str(tmp_path / "a.parquet")))
        assert {talk.statements[0].text: talk.statements[0].label for talk in found.conversations} == {
            "T": True, "F": False,
        }  # fmt: skip


def test_the_word_for_a_gap_is_no_statement_and_no_group(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("statement,label,g\nS,1,nan\nT,0,nan\n")
    found = statements(JsonlConfig(path=str(path), group_column="g"))
    assert {talk.group for talk in found.conversations} == {""}
    for fields in (
        {"text_column": "g"},
        {"true_column": "g", "false_column": "g", "question_column": "statement"},
    ):
        with pytest.raises(DataError, match=r"is 'nan', which a table's writer leaves in a gap"):
            load(StatementsConfig(path=str(path), **fields))


def test_copies_and_contradictions_are_said(tmp_path: Path) -> None:
    rows = [("Snow is white.", 1), ("Snow is  white.", 1), ("Ice is hot.", 0), ("ice is hot.", 1), ("A.", 0)]
    path = write(tmp_path / "a.csv", [{"statement": text, "label": label} for text, label in rows])
    for config in (StatementsConfig(path=path), JsonlConfig(path=path)):
        said = " / ".join(statements(config).notes)
        assert "1 statements are labelled both true and false ('ice is hot.')" in said
        assert "2 statements are copies of an earlier one" in said


def test_a_row_of_a_question_is_a_true_and_a_false_statement(tmp_path: Path) -> None:
    rows = [
        {"question": f"Which {n}? ", "right": f"R{n}", "wrong": f"W{n}", "x": "", "g": f"entity {n % 2}"}
        for n in range(6)
    ]
    path = write(tmp_path / "a.csv", rows)
    found = statements(StatementsConfig(path=path, true_column="right", false_column="wrong"))
    said = {talk.statements[0].text: (talk.statements[0].label, talk.group) for talk in found.conversations}
    right = {f"Which {n}? R{n}": (True, f"a/{n + 1}") for n in range(6)}
    assert said == right | {f"Which {n}? W{n}": (False, f"a/{n + 1}") for n in range(6)}
    pair = {"true_column": "right", "false_column": "wrong"}
    grouped = statements(StatementsConfig(path=path, group="g", **pair))
    assert {talk.group for talk in grouped.conversations} == {"entity 0", "entity 1"}
    for columns, message in (
        ({"true_column": "right"}, r"belong together"),
        (pair | {"source_column": "g"}, r"leave them out"),
        ({"true_column": "right", "false_column": "wrongg"}, r"no column 'wrongg'; did you mean 'wrong'"),
        ({"true_column": "right", "false_column": "x"}, r"'x' in row 1 of"),
    ):
        with pytest.raises(DataError, match=message):
            load(StatementsConfig(path=path, **columns))


def test_every_data_file_of_a_folder_is_a_topic(tmp_path: Path) -> None:
    rows = [{"statement": f"S{n}", "label": n % 2} for n in range(4)]
    for name in ("cities.csv", "towns.parquet", "rivers.json"):
        write(tmp_path / name, rows)
    (tmp_path / "README.md").write_text("x")
    found = statements(StatementsConfig(path=str(tmp_path)))
    assert {talk.statements[0].source for talk in found.conversations} == {"cities", "towns", "rivers"}
    found = statements(StatementsConfig(path=f"{tmp_path}/*s.csv"))
    assert {talk.statements[0].source for talk in found.conversations} == {"cities"}


def test_one_class_is_refused_with_what_can_help(tmp_path: Path) -> None:
    all_true = write(tmp_path / "a.csv", [{"statement": f"S{n}", "label": 1} for n in range(12)])
    for config in (StatementsConfig(path=all_true), JsonlConfig(path=all_true, num_samples=3)):
        with pytest.raises(DataError, match=r"are labelled true.* that has false ones") as raised:
            check_both_classes(statements(config))
        assert "num_samples" not in str(raised.value)
    mixed = write(tmp_path / "b.csv", [{"statement": f"S{n}", "label": n > 0} for n in range(12)])
    draws = (statements(StatementsConfig(path=mixed, num_samples=2, seed=seed)) for seed in range(99))
    drawn = next(one for one in draws if have_one_class(one.conversations))
    with pytest.raises(DataError, match=r"raise dataset\.num_samples or change dataset\.seed"):
        check_both_classes(drawn)
    check_both_classes(statements(StatementsConfig(path=mixed)))


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (
            33,
            r"characters 21 to 33 end past the content, which has 32 characters \('Ice is hot\.' from 21 on\)",
        ),
        (99, r"characters 21 to 99 end past the content, which has 32 characters"),
        (31, r"characters 21 to 31 of the content are 'Ice is hot', not 'Ice is hot\.'"),
    ],
)
def test_a_span_that_ends_elsewhere_is_refused(write_lines: Any, end: int, message: str) -> None:
    content = "1. Snow is white.\n2. Ice is hot."
    level = {
        "position": 1,
        "is_true": False,
        "source": "s",
        "text": "Ice is hot.",
        "char_start": 21,
        "char_end": end,
    }
    messages = [{"role": "assistant", "content": content}]
    path = write_lines("a.jsonl", [{"id": "c", "messages": messages, "labels": {"statement_level": [level]}}])
    with pytest.raises(DataError, match=message):
        load(NtmlConfig(path=str(path)))
