"""Cells of answers: what they meant, however a table's writer spelled it; what cannot be known is refused or said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probegrid.data import load
from probegrid.data.cells import AnswerCells, Booleans
from probegrid.data.example import QuestionSet
from probegrid.data.jsonl import JsonlConfig
from probegrid.data.spelling import spelled
from probegrid.errors import DataError


def answers(value: Any, **fields: Any) -> tuple[str, ...] | None:
    return AnswerCells("a", **fields).read(value, "an answer")


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() and text.strip() not in ("nan", "NaN", "<NA>", "NaT", "#N/A")
)


@given(st.lists(TEXTS, min_size=1, max_size=5, unique=True))
def test_a_list_is_the_same_list_however_it_is_spelled(items: list[str]) -> None:
    expected = tuple(items)
    assert answers(items) == expected
    assert answers(repr(items)) == answers(json.dumps(items)) == expected
    assert answers(repr(tuple(items)).replace("(", "[", 1)[:-1].rstrip(",") + "]") == expected
    assert answers([[item] for item in items]) == answers(repr([[item] for item in items])) == expected
    assert (
        answers({"text": items, "answer_start": [0]})
        == answers([{"text": item} for item in items])
        == expected
    )
    assert answers({"value": items[0], "aliases": items}) == expected


@given(
    st.lists(
        st.text("abc'\" ,é-", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=4, unique=True
    )
)
def test_numpy_writes_no_commas(items: list[str]) -> None:
    array = np.array(items, dtype=object)
    assert answers(str(array)) == tuple(items)
    assert answers(str({"text": array, "answer_start": np.array([1] * len(items))})) == tuple(items)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (1900.0, ("1900",)),
        (51.0, ("51",)),
        (3.5, ("3.5",)),
        (-0.25, ("-0.25",)),
        (10**30, (str(10**30),)),
        (2e16, ("20000000000000000",)),
        (1e-5, ("0.00001",)),
        (1e22, ("1e+22",)),
        ("{[1]: 2}", ("{[1]: 2}",)),
        (math.nan, None),
        (None, None),
        ("  ", None),
        ("nan", None),
        ("Nan", ("Nan",)),
        ("NA", ("NA",)),
        (["a0", math.nan], ("a0",)),
        (["a0", None, ""], ("a0",)),
        ([math.nan], None),
        ("[nan, None]", None),
        ("['a0', nan]", ("a0",)),
        ("[1900.0, 3.5]", ("1900", "3.5")),
        ("[]", ()),
        ([], ()),
        ({"text": [], "answer_start": []}, ()),
        ([["HTT", "huntingtin"], ["x"]], ("HTT", "huntingtin", "x")),
        ("[Paris]", ("[Paris]",)),
        ("[0, 1)", ("[0, 1)",)),
        ("{x}", ("{x}",)),
        ("['it''s']", ("it", "s")),
    ],
)
def test_cells(cell: Any, expected: tuple[str, ...] | None) -> None:
    assert answers(cell) == expected


def test_a_separator_divides_texts_and_not_items() -> None:
    assert answers("a; b;; c", separator=";") == ("a", "b", "c")
    assert answers("Salzburg, Austria", separator=";") == ("Salzburg, Austria",)
    assert answers(["a; b"], separator=";") == ("a; b",)


def test_booleans_are_written_by_a_key() -> None:
    assert answers(True, booleans=Booleans.yes_no) == ("yes",)
    assert answers([False], booleans=Booleans.true_false) == ("false",)
    assert answers("True", booleans=Booleans.yes_no) == ("yes",)
    assert answers("True") == ("True",)
    with pytest.raises(
        DataError, match=r"is False; .*dataset\.booleans=yes_no or dataset\.booleans=true_false"
    ):
        answers(False)


@pytest.mark.parametrize("word", ["True", "TRUE"])
def test_booleans_that_became_texts_are_booleans(tmp_path: Path, word: str) -> None:
    path = tmp_path / "a.csv"
    other = {"True": "False", "TRUE": "FALSE"}[word]
    path.write_text(f"question,answers\nQ1,{word}\nQ2,{other}\nQ3,\n")
    with pytest.raises(DataError, match=r"is True; .*dataset\.booleans=yes_no"):
        load(JsonlConfig(path=str(path)))
    loaded = load(JsonlConfig(path=str(path), booleans=Booleans.yes_no))
    assert isinstance(loaded, QuestionSet)
    assert {one.references for one in (*loaded.questions, *loaded.shots)} == {("yes",), ("no",)}
    assert isinstance(load(JsonlConfig(path=str(path), as_text=True)), QuestionSet)
    path.write_text("question,answers\nQ1,True\nQ2,Maybe\n")
    assert isinstance(load(JsonlConfig(path=str(path))), QuestionSet)  # words of the author's


def test_texts_can_be_taken_as_they_stand() -> None:
    assert answers("['a', 'b']", as_text=True) == ("['a', 'b']",)
    assert answers("nan", as_text=True) == ("nan",)


def test_nothing_of_a_cell_is_run() -> None:
    for text in (
        "[__import__('os').getcwd()]",
        "[open('/etc/passwd').read()]",
        "[1 + 1]",
        "[f'{1}']",
        "[lambda: 1]",
    ):
        assert spelled(text) is None


def test_how_cells_were_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answers\nQ1,\"['a', 'b']\"\nQ2,c;d\nQ3,\nQ4,[x]\n")
    loaded = load(JsonlConfig(path=str(path)))
    said = " / ".join(loaded.notes)
    assert "1 cell of 'answers': a list written as a text" in said
    assert (
        "1 cell of 'answers': holds a separator, read as one reference ('c;d'; dataset.answers_separator"
        in said
    )
    assert "1 cell of 'answers': looks like a list, read as the text it is ('[x]')" in said
    assert "1 of 4 rows of" in said


def test_whole_floats_of_a_text_column_beside_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "question,answers,version\n"
        + "".join(f"Q{n},{'' if n % 3 else f'{1900 + n}.0'},2.{n}\n" for n in range(9))
    )
    loaded = load(JsonlConfig(path=str(path)))
    assert isinstance(loaded, QuestionSet)
    assert {one.references for one in (*loaded.questions, *loaded.shots)} == {("1900",), ("1903",), ("1906",)}
    versions = load(JsonlConfig(path=str(path), answers_column="version"))
    assert isinstance(versions, QuestionSet)
    assert ("2.0",) not in {
        one.references for one in (*versions.questions, *versions.shots)
    }  # all numbers: 2
    path.write_text("question,answers\nQ1,1995.0\nQ2,\"['a', 'b']\"\n")
    beside = load(JsonlConfig(path=str(path)))
    assert isinstance(beside, QuestionSet)
    assert {one.references for one in (*beside.questions, *beside.shots)} == {("1995",), ("a", "b")}
    path.write_text("question,answers\nQ1,2.0\nQ2,two\n")
    mixed = load(JsonlConfig(path=str(path)))
    assert isinstance(mixed, QuestionSet)
    assert {one.references for one in (*mixed.questions, *mixed.shots)} == {("2.0",), ("two",)}


def test_answers_in_several_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,first,more\nQ1,a,"[""b"", ""a""]"\nQ2,,c\nQ3,,\n')
    loaded = load(JsonlConfig(path=str(path), answer_columns=["first", "more"]))
    assert isinstance(loaded, QuestionSet)
    found = {one.text: one.references for one in (*loaded.questions, *loaded.shots)}
    assert found == {"Q1": ("a", "b"), "Q2": ("c",)}
    with pytest.raises(DataError, match=r"no column 'mor'; did you mean 'more'"):
        load(JsonlConfig(path=str(path), answer_columns=["first", "mor"]))


def test_rows_of_one_question_without_ids_are_joined(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n // 2}", "answers": [f"a{n}"]} for n in range(8)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load(JsonlConfig(path=str(path)))
    assert isinstance(loaded, QuestionSet)
    found = {one.text: one.references for one in (*loaded.questions, *loaded.shots)}
    assert found == {f"Q{n}": (f"a{2 * n}", f"a{2 * n + 1}") for n in range(4)}
    assert "4 rows of" in loaded.notes[0]


def test_rows_with_ids_of_their_own_are_questions_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"ID": f"c-{n}", "question": "How many?", "answers": n}) + "\n" for n in range(4))
    )
    loaded = load(JsonlConfig(path=str(path)))
    assert isinstance(loaded, QuestionSet)
    found = {one.id: one.references for one in (*loaded.questions, *loaded.shots)}
    assert found.items() <= {f"c-{n}": (str(n),) for n in range(4)}.items()
    assert not any("repeat an earlier question" in note for note in loaded.notes)


def test_a_separator_that_nothing_holds_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answers\nQ,a / b\n")
    said = "no answer holds dataset.answers_separator=|: each cell is one reference"
    assert said in load(JsonlConfig(path=str(path), answers_separator="|")).notes
    assert said not in load(JsonlConfig(path=str(path), answers_separator="/")).notes


@pytest.mark.parametrize(
    ("answers", "column", "expected"),
    [
        ('{"short": "x"}', "answers.short", ("x",)),
        ([{"short": "x"}, {"short": "y"}], "answers.short", ("x", "y")),
        ({"short": {"text": ["x"]}}, "answers.short.text", ("x",)),
        ({"short": "['x', 'y']"}, "answers.short", ("x", "y")),
    ],
)
def test_parts_of_objects(tmp_path: Path, answers: Any, column: str, expected: tuple[str, ...]) -> None:
    rows = [{"question": "Q", "answers": answers}, {"question": "R", "answers": None}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load(JsonlConfig(path=str(path), answers_column=column))
    assert isinstance(loaded, QuestionSet)
    assert [one.references for one in loaded.questions] == [expected]
    assert any("1 of 2 rows of" in note for note in loaded.notes)
    with pytest.raises(DataError, match=r"row 1 of .* has no 'answers\.shrt'; 'answers' has: short"):
        load(JsonlConfig(path=str(path), answers_column="answers.shrt"))


def test_a_context_that_is_a_list_is_its_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answers,context\nQ,a,\"['One.', 'Two.']\"\n")
    loaded = load(JsonlConfig(path=str(path)))
    assert isinstance(loaded, QuestionSet)
    assert loaded.questions[0].context == "One.\nTwo."
    assert "contexts that are a list written as a text, each item a paragraph: 1" in loaded.notes
    as_text = load(JsonlConfig(path=str(path), as_text=True))
    assert isinstance(as_text, QuestionSet)
    assert as_text.questions[0].context == "['One.', 'Two.']"


def test_the_word_for_a_gap_is_no_question_and_no_group(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answers,g\nQ,a,nan\nR,b,nan\n")
    loaded = load(JsonlConfig(path=str(path), group_column="g"))
    assert isinstance(loaded, QuestionSet)
    assert {one.group for one in (*loaded.questions, *loaded.shots)} == {""}
    with pytest.raises(
        DataError, match=r"the question in row 1 of .* is 'nan', which a table's writer leaves"
    ):
        load(JsonlConfig(path=str(path), question_column="g"))


@pytest.mark.parametrize(
    ("row", "fields", "expected"),
    [
        ({"A": "one", "B": "", "C": "two", "answers": "C"}, {"option_columns": ["A", "B", "C"]}, "B"),
        ({"A": "one", "B": "two", "C": "nan", "answers": "A"}, {"option_columns": ["A", "B", "C"]}, "A"),
        (
            {"o1": "one", "o2": "two", "o3": None, "answers": "two"},
            {"option_columns": ["o1", "o2", "o3"]},
            "B",
        ),
        ({"o": {"A": "one", "B": "two", "C": None}, "answers": "B"}, {"options_column": "o"}, "B"),
        ({"o": ["one", "two", None], "answers": "two"}, {"options_column": "o"}, "B"),
    ],
)
def test_a_gap_is_no_option(tmp_path: Path, row: dict[str, Any], fields: Any, expected: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "Q", **row}))
    loaded = load(JsonlConfig(path=str(path), **fields))
    assert isinstance(loaded, QuestionSet)
    assert loaded.questions[0].options == ("one", "two")
    assert loaded.questions[0].references == (expected, {"A": "one", "B": "two"}[expected])


def test_a_gap_between_options_that_have_only_places_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,o1,o2,o3,o4,answers\nQ,one,,three,four,3\n")
    with pytest.raises(DataError, match=r"an option in row 1 of .* is ''"):
        load(JsonlConfig(path=str(path), option_columns=["o1", "o2", "o3", "o4"]))


@pytest.mark.parametrize(
    ("options", "answer", "message"),
    [
        (["x", None, "z"], "3", r"a list of texts, or texts with their labels"),
        (["x", "x"], "x", r"'x', the text of 2 options; name one of them by its letter"),
        (["x", "y"], "²", r"'²', which names none of the 2 options"),
        ({"text": ["x", "y"], "label": ["A", "B", "C"]}, "C", r"are 2 texts with 3 labels; each needs one"),
    ],
)
def test_options_that_could_be_others_are_refused(
    tmp_path: Path, options: Any, answer: str, message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "Q", "answers": answer, "o": options}))
    with pytest.raises(DataError, match=message):
        load(JsonlConfig(path=str(path), options_column="o"))


def test_a_gap_is_no_context(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"question": "P", "answers": "x", "context": "nan"}\n'
        '{"question": "Q", "answers": "x", "context": NaN}\n{"question": "R", "answers": "y", "context": null}'
    )
    loaded = load(JsonlConfig(path=str(path)))
    assert isinstance(loaded, QuestionSet)
    assert {one.context for one in (*loaded.questions, *loaded.shots)} == {""}


def test_a_column_of_a_like_name_is_found_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"Question": "Q", "golden_answers": ["x"]}')
    loaded = load(JsonlConfig(path=str(path)))
    assert isinstance(loaded, QuestionSet)
    assert loaded.questions[0].references == ("x",)
    assert "the column 'Question' of" in loaded.notes[0]
    path.write_text('{"question": "Q", "golden_answers": ["x"], "possible_answers": ["y"]}')
    with pytest.raises(DataError, match=r"no column 'answers'.*dataset\.answers_column=<column>"):
        load(JsonlConfig(path=str(path)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "Q", "answer": "B", "choices": ["x", "y"]},
            "looks like multiple choice (choices), and its",
        ),
        ({"question": "Q", "A": "x", "B": "y", "answer": "B"}, "dataset.option_columns=[A,B] shows them"),
        (
            {"Body": "There are 3.", "Question": "How many?", "Answer": 3.0},
            "has a column 'Body' beside its question",
        ),
        ({"question": "Q", "answer": "1+1\n#### 2"}, "whole solutions that end in '#### <number>'"),
    ],
)
def test_what_would_be_wrong_to_grade_is_said(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    assert message in " / ".join(load(JsonlConfig(path=str(path))).notes)


def test_a_column_of_groups_that_no_key_names_is_said(tmp_path: Path) -> None:
    """Where groups recur: intervals as if each row stood alone would be too narrow, and nothing would show it."""
    path = tmp_path / "a.jsonl"

    def said(group_column: str | None = None) -> bool:
        notes = load(JsonlConfig(path=str(path), group_column=group_column)).notes
        return any("dataset.group_column=group keeps a group whole" in note for note in notes)

    for of, is_said in (("pq", False), ("pp", True)):
        rows = [{"question": f"Q{row}", "answers": ["x"], "group": group} for row, group in enumerate(of)]
        path.write_text("\n".join(map(json.dumps, rows)))
        assert said() is is_said
    assert not said(group_column="group")
