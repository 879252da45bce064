"""The contract of a dataset: drawn as it says, known by its content, nothing of what is asked among what is shown."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from probegrid.data import load
from probegrid.data.example import Conversation, Question, QuestionSet, StatementSet
from probegrid.schema import DatasetConfig

FEWEST = 10


def check_dataset(config: DatasetConfig) -> None:
    """Hold a dataset's config, of at least ten examples, to what every dataset promises.

    Loading is deterministic; ``num_samples`` cuts one permutation, which the seed makes; the fingerprint follows the
    content and not the path; questions and few-shot examples share nothing; every statement stands where its span says.

    Raises:
        AssertionError: it does not hold.
    """
    loaded = load(config)
    assert load(config) == loaded, "it loads differently each time"
    examples = examples_of(loaded)
    assert len(examples) >= FEWEST, f"{len(examples)} examples are too few to check; give {FEWEST} or more"
    assert len({example.id for example in examples}) == len(examples), "ids are not unique"
    _check_draw(config, loaded)
    _check_fingerprint(config, loaded)
    if isinstance(loaded, QuestionSet):
        _check_questions(loaded)
    else:
        _check_statements(loaded)


def examples_of(loaded: QuestionSet | StatementSet) -> tuple[Question, ...] | tuple[Conversation, ...]:
    """What is drawn of a set."""
    return loaded.questions if isinstance(loaded, QuestionSet) else loaded.conversations


def _check_draw(config: DatasetConfig, loaded: QuestionSet | StatementSet) -> None:
    """``num_samples`` cuts one permutation, the seed makes another, neither touches the few-shot examples."""
    fewer, every = load(replace(config, num_samples=3)), load(replace(config, num_samples=10**6))
    other = load(replace(config, seed=config.seed + 1))
    examples = examples_of(loaded)
    whole = examples_of(every)
    assert len(examples) == min(config.num_samples, len(whole)), "num_samples is not what is drawn"
    assert examples_of(fewer) == examples[:3], "fewer examples are other examples"
    assert whole[: len(examples)] == examples, "more examples are other examples"
    assert any("all of them are used" in note for note in every.notes), (
        "asking for more than there are is not said"
    )
    assert [example.id for example in examples_of(other)] != [example.id for example in examples], (
        "the seed draws nothing"
    )
    if isinstance(loaded, QuestionSet):
        for another in (fewer, every, other):
            assert isinstance(another, QuestionSet)
            assert another.shots == loaded.shots, "what is asked changes what can be shown"


def _check_fingerprint(config: DatasetConfig, loaded: QuestionSet | StatementSet) -> None:
    """The fingerprint follows the content and the draw, and not the path."""
    assert load(replace(config, seed=config.seed + 1)).fingerprint != loaded.fingerprint
    assert load(replace(config, num_samples=3)).fingerprint != loaded.fingerprint
    if config.path and Path(config.path).exists():
        source = Path(config.path)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "elsewhere" / source.name
            copy.parent.mkdir()
            shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
            moved = load(replace(config, path=str(copy)))
            assert moved.fingerprint == loaded.fingerprint, "the fingerprint depends on the path"


def _check_questions(loaded: QuestionSet) -> None:
    """Questions and few-shot examples share nothing; references are texts, each once."""
    assert loaded.shots, "there is nothing to show as a few-shot example"
    shown = {shot.id for shot in loaded.shots}
    assert not {question.id for question in loaded.questions} & shown, "an example is asked and shown"
    asked = {_wording(question) for question in loaded.questions}
    assert not asked & {_wording(shot) for shot in loaded.shots}, "a wording is asked and shown"
    paragraphs = {question.context for question in loaded.questions if question.context}
    assert not paragraphs & {shot.context for shot in loaded.shots}, "a paragraph is asked about and shown"
    assert all(shot.references for shot in loaded.shots), "a few-shot example has no answer"
    for question in (*loaded.questions, *loaded.shots):
        assert len(set(question.references)) == len(question.references), f"{question.id} repeats a reference"
        assert all(reference.strip() for reference in question.references), f"{question.id}: empty reference"


def _wording(question: Question) -> str:
    """The text without what a reader would not call a difference."""
    return question.text.casefold().strip(" ?!.")


def _check_statements(loaded: StatementSet) -> None:
    """Every statement is where its span says, in the last message, the assistant's; its id is its own."""
    ids = [statement.id for conversation in loaded.conversations for statement in conversation.statements]
    assert len(set(ids)) == len(ids), "ids of statements are not unique"
    for conversation in loaded.conversations:
        assert conversation.messages[-1].role == "assistant", f"{conversation.id} ends with another's message"
        content = conversation.messages[-1].content
        for statement in conversation.statements:
            found = content[statement.char_start : statement.char_end]
            assert found == statement.text, f"{statement.id} is not where its span says"
            assert isinstance(statement.label, bool), f"the label of {statement.id} is no truth value"
