"""The contract that any dataset must pass, and writers of small files in the schemas of the real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probegrid.data import load
from probegrid.data.example import Conversation, Question, QuestionSet, StatementSet
from probegrid.schema import DatasetConfig

CheckDataset = Callable[[DatasetConfig], None]
WriteLines = Callable[..., Path]


@pytest.fixture
def check_dataset(tmp_path: Path) -> CheckDataset:
    """Hold a config of at least ten examples to what every dataset promises."""

    def check(config: DatasetConfig) -> None:
        loaded = load(config)
        assert load(config) == loaded, "not deterministic"
        examples = examples_of(loaded)
        assert len({example.id for example in examples}) == len(examples), "ids are not unique"
        check_draw(config, loaded)
        check_fingerprint(config, loaded, tmp_path)
        if isinstance(loaded, QuestionSet):
            check_questions(loaded)
        else:
            check_statements(loaded)

    return check


def examples_of(loaded: QuestionSet | StatementSet) -> tuple[Question, ...] | tuple[Conversation, ...]:
    """What is drawn of a set."""
    return loaded.questions if isinstance(loaded, QuestionSet) else loaded.conversations


def check_draw(config: DatasetConfig, loaded: QuestionSet | StatementSet) -> None:
    """``num_samples`` cuts one permutation, the seed makes another, neither touches the few-shot examples."""
    fewer, every = load(replace(config, num_samples=3)), load(replace(config, num_samples=10**6))
    other = load(replace(config, seed=config.seed + 1))
    examples = examples_of(loaded)
    assert len(examples) == min(config.num_samples, len(examples_of(every)))
    assert examples_of(fewer) == examples[:3]
    assert examples_of(every)[: len(examples)] == examples
    assert "all of them are used" in every.notes[-1]
    assert [example.id for example in examples_of(other)] != [example.id for example in examples]
    if isinstance(loaded, QuestionSet):
        for another in (fewer, every, other):
            assert isinstance(another, QuestionSet)
            assert another.shots == loaded.shots


def check_fingerprint(config: DatasetConfig, loaded: QuestionSet | StatementSet, scratch: Path) -> None:
    """The fingerprint follows the content and the draw, and not the path."""
    assert load(replace(config, seed=config.seed + 1)).fingerprint != loaded.fingerprint
    assert load(replace(config, num_samples=3)).fingerprint != loaded.fingerprint
    if config.path:
        source = Path(config.path)
        copy = scratch / "elsewhere" / source.name
        copy.parent.mkdir()
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
        assert load(replace(config, path=str(copy))).fingerprint == loaded.fingerprint


def check_questions(loaded: QuestionSet) -> None:
    """Questions and few-shot examples share nothing; references are texts, each once."""
    assert loaded.shots
    assert not {question.id for question in loaded.questions} & {shot.id for shot in loaded.shots}
    assert not {wording(question) for question in loaded.questions} & {wording(shot) for shot in loaded.shots}
    paragraphs = {question.context for question in loaded.questions if question.context}
    assert not paragraphs & {shot.context for shot in loaded.shots}
    assert all(shot.references for shot in loaded.shots)
    for question in (*loaded.questions, *loaded.shots):
        assert len(set(question.references)) == len(question.references)
        assert all(reference.strip() for reference in question.references)


def wording(question: Question) -> str:
    """The text without what a reader would not call a difference."""
    return question.text.casefold().strip(" ?!.")


def check_statements(loaded: StatementSet) -> None:
    """Every statement is where its span says, in the last message, the assistant's; its id is its own."""
    ids = [statement.id for conversation in loaded.conversations for statement in conversation.statements]
    assert len(set(ids)) == len(ids)
    for conversation in loaded.conversations:
        assert conversation.messages[-1].role == "assistant"
        for statement in conversation.statements:
            content = conversation.messages[-1].content
            assert content[statement.char_start : statement.char_end] == statement.text
            assert isinstance(statement.label, bool)


@pytest.fixture
def write_lines(tmp_path: Path) -> WriteLines:
    """Write rows as JSON lines: ``write_lines("train.jsonl", rows)``."""

    def write(name: str, rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
