"""Statements of one or several CSV files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import Message, StatementSet
from probegrid.data.statements import StatementsConfig
from probegrid.errors import DataError


def write_csv(path: Path, count: int, header: str = "statement,label,city") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'"{path.stem}, number {number}, is true.",{number % 2},x' for number in range(count)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def statements(path: object, **fields: Any) -> StatementSet:
    loaded = load(StatementsConfig(path=str(path), **fields))
    assert isinstance(loaded, StatementSet)
    return loaded


def test_contract_holds_for_a_file(check_dataset: Any, tmp_path: Path) -> None:
    check_dataset(StatementsConfig(path=str(write_csv(tmp_path / "cities.csv", 30)), num_samples=20))


def test_contract_holds_for_a_folder(check_dataset: Any, tmp_path: Path) -> None:
    write_csv(tmp_path / "sets/cities.csv", 20)
    write_csv(tmp_path / "sets/towns.csv", 20)
    check_dataset(StatementsConfig(path=str(tmp_path / "sets"), num_samples=20))


def test_a_statement_is_a_message_of_the_assistant(tmp_path: Path) -> None:
    loaded = statements(write_csv(tmp_path / "cities.csv", 2))
    found = {conversation.id: conversation for conversation in loaded.conversations}
    assert found["cities/2"].messages == (Message("assistant", "cities, number 1, is true."),)
    statement = found["cities/2"].statements[0]
    assert (statement.id, statement.label, statement.source) == ("cities/2", True, "cities")
    assert found["cities/1"].statements[0].label is False


def test_several_paths_stand_between_commas(tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "a.csv", 3), write_csv(tmp_path / "more/b.csv", 4)
    loaded = statements(f"{first}, {second.parent}")
    sources = [conversation.statements[0].source for conversation in loaded.conversations]
    assert sorted(sources) == ["a"] * 3 + ["b"] * 4


def test_a_path_may_hold_a_comma_itself(tmp_path: Path) -> None:
    assert len(statements(write_csv(tmp_path / "true,false.csv", 3)).conversations) == 3


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = write_csv(tmp_path / "a.csv", 3), write_csv(tmp_path / "more/a.csv", 4)
    with pytest.raises(DataError, match=r"a\.csv and .*more/a\.csv have the same name"):
        statements(f"{first},{second}")


def test_a_folder_without_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no CSV file"):
        statements(tmp_path)


def test_a_path_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"dataset=statements has no data of its own"):
        load(StatementsConfig())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("statement,lable\nA.,1\n", r"no column 'label'; did you mean 'lable'\? .*Rename the columns"),
        ("statement,label\nA.,2\n", r"the label in row 1 of .* is '2'; a label is 1 or true"),
        ("statement,label\nA.,1\n ,1\n", r"the statement in row 2 of .* is ' '; a text is expected"),
        ("statement,label\nA, and B.,1\n", r"line 2: the number of fields is not that of the header \(2\)"),
        ("statement,label\nA.\n", r"line 2: the number of fields is not that of the header \(2\)"),
        ('statement,label\n"A" b.,1\n', r"line 2: malformed CSV"),
        ("statement,label\n", r"is empty: it has no row"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "cities.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        statements(path)


def test_words_that_other_readers_take_for_nulls_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes("\ufeffstatement,label\r\nNA,TRUE\r\nnull,0.0\r\n".encode())
    loaded = statements(path)
    read = {found.statements[0].text: found.statements[0].label for found in loaded.conversations}
    assert read == {"NA": True, "null": False}


def test_outer_white_space_is_left_out_and_said(tmp_path: Path) -> None:
    """A trailing space on the true statements would tell a model what no word does."""
    file = tmp_path / "spaced.csv"
    file.write_text("statement,label\nTwo is even. ,1\n Four is even.,1\nTwo is odd.,0\nFour is odd.,0\n")
    data = load(StatementsConfig(path=str(file)))
    assert isinstance(data, StatementSet)
    statements = [statement for talk in data.conversations for statement in talk.statements]
    assert all(one.text == one.text.strip() for one in statements)
    assert all(talk.messages[0].content == talk.statements[0].text for talk in data.conversations)
    assert all(one.char_end == len(one.text) for one in statements)
    assert "white space around 2 of 4 statements is left out" in data.notes


def test_a_column_names_the_groups(tmp_path: Path) -> None:
    file = tmp_path / "towns.csv"
    file.write_text(
        "statement,label,town\nIt rains in Lodz.,1,Lodz\nIt snows in Lodz.,0,Lodz\nIt is dry.,1,\n"
    )
    plain, grouped = (load(StatementsConfig(path=str(file), group=group)) for group in (None, "town"))
    assert isinstance(plain, StatementSet)
    assert isinstance(grouped, StatementSet)
    assert sorted(talk.group for talk in grouped.conversations) == ["", "Lodz", "Lodz"]
    assert plain.fingerprint != grouped.fingerprint
    with pytest.raises(DataError, match="city"):
        load(StatementsConfig(path=str(file), group="city"))
