"""NTML: the system prompt's fate, ids and spans."""

from __future__ import annotations

from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import StatementSet
from probegrid.data.ntml import NEUTRAL_SYSTEM_PROMPT, NtmlConfig, SystemPrompt
from probegrid.errors import DataError


def record(number: int) -> dict[str, Any]:
    """Two truths and a lie, in the schema of the real files."""
    sentences = [f"The number {number} is a number.", "Water is dry.", "Snö är vit ❄."]
    labels, lines, start = [], [], 0
    for position, (sentence, is_true) in enumerate(zip(sentences, (True, False, True), strict=True)):
        begin = start + len(f"{position + 1}. ")
        lines.append(f"{position + 1}. {sentence}")
        labels.append(
            {
                "text": sentence,
                "is_true": is_true,
                "position": position,
                "char_start": begin,
                "char_end": begin + len(sentence),
                "source": "facts",
                "statement_id": position,
            }
        )
        start += len(lines[-1]) + 1
    return {
        "id": f"2T1L_{number:03}",
        "messages": [
            {"role": "system", "content": "You will lie on statement(s) 2."},
            {"role": "assistant", "content": "\n".join(lines)},
        ],
        "labels": {"ratio": "2T1L", "statement_level": labels, "lie_positions": [2]},
    }


@pytest.fixture
def path(write_lines: Any) -> str:
    return str(write_lines("2T1L.jsonl", [record(number) for number in range(20)]))


def statements(path: str, **fields: Any) -> StatementSet:
    loaded = load(NtmlConfig(path=path, **fields))
    assert isinstance(loaded, StatementSet)
    return loaded


def test_contract_holds(check_dataset: Any, path: str) -> None:
    check_dataset(NtmlConfig(path=path, num_samples=12))


def test_statements_carry_id_label_and_source(path: str) -> None:
    conversation = next(found for found in statements(path).conversations if found.id == "2T1L_007")
    assert [statement.id for statement in conversation.statements] == [
        "2T1L_007/0",
        "2T1L_007/1",
        "2T1L_007/2",
    ]
    assert [statement.label for statement in conversation.statements] == [True, False, True]
    assert conversation.statements[2].text == "Snö är vit ❄."
    assert {statement.source for statement in conversation.statements} == {"facts"}


def test_the_system_prompt_is_dropped_kept_or_neutral(path: str) -> None:
    first = {mode: statements(path, system_prompt=mode).conversations[0].messages for mode in SystemPrompt}
    assert [message.role for message in first[SystemPrompt.drop]] == ["assistant"]
    assert first[SystemPrompt.keep][0].content == "You will lie on statement(s) 2."
    assert first[SystemPrompt.neutral][0].content == NEUTRAL_SYSTEM_PROMPT
    assert len({messages[-1] for messages in first.values()}) == 1


def test_only_a_kept_system_prompt_is_a_leak(path: str, write_lines: Any) -> None:
    leaks = {mode: statements(path, system_prompt=mode).leaks for mode in SystemPrompt}
    assert leaks[SystemPrompt.drop] == leaks[SystemPrompt.neutral] == ()
    assert "which statements are lies (dataset.system_prompt=keep)" in leaks[SystemPrompt.keep][0]
    silent = record(0)
    del silent["messages"][0]
    assert statements(str(write_lines("s.jsonl", [silent])), system_prompt=SystemPrompt.keep).leaks == ()


def test_a_path_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"dataset=ntml has no data of its own; .*dataset\.path="):
        load(NtmlConfig())


def changed(field: str, value: Any) -> dict[str, Any]:
    broken = record(5)
    broken["labels"]["statement_level"][1][field] = value
    return broken


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            changed("char_start", 0),
            r"statement 1 of conversation 2T1L_005 .*: characters 0 to .* not 'Water is dry\.'",
        ),
        (changed("char_end", 10**6), r"statement 1 of conversation 2T1L_005 .*: characters"),
        (changed("char_start", -13), r"statement 1 of conversation 2T1L_005 .*: characters -13"),
        (
            changed("char_start", "41"),
            r"'char_start' of statement 1 of .* is '41'; a whole number is expected",
        ),
        (changed("position", True), r"'position' of conversation 2T1L_005 .* is True; a whole number"),
        (changed("position", 0), r"two statements of conversation 2T1L_005 .* have the same position"),
        (changed("is_true", 1), r"'is_true' of statement 1 of .* is 1; true or false is expected"),
        (changed("source", None), r"'source' of statement 1 of .* is None; a text is expected"),
        (record(5) | {"labels": []}, r"the labels of conversation 2T1L_005 .* are \[\]; an object"),
        (record(5) | {"labels": {}}, r"conversation 2T1L_005 .* has no 'statement_level'"),
        (record(5) | {"messages": []}, r"'messages' of conversation 2T1L_005 .* is not a list of objects"),
        (
            record(5) | {"messages": [{"role": "tool", "content": "x"}]},
            r"has the role 'tool'; allowed: system, user",
        ),
        (
            record(5) | {"messages": [{"role": "user", "content": "x"}]},
            r"the last message of .* not the assistant's",
        ),
        (record(4), r"row 2 of .* has the id '2T1L_004' of an earlier row"),
    ],
)
def test_a_broken_record_is_named(write_lines: Any, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(NtmlConfig(path=str(write_lines("broken.jsonl", [record(4), broken]))))
