"""The middle of a cell whose probe is trained: examples and their activations, from statements or from own answers.

Knows how examples come from a dataset and a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from probegrid.cell.answer_probe import JudgedAnswers, answer_tables, read_judged_answers
from probegrid.cell.outcome import Outcome
from probegrid.cell.trained_outcome import Divided, activation_outcome, text_outcome
from probegrid.data.example import QuestionSet, StatementSet
from probegrid.errors import ConfigError, DataError
from probegrid.probes import ActivationProbe, TrainedProbe, resolve_layers
from probegrid.probes.text_baseline import TextBaseline
from probegrid.probes.training import Examples
from probegrid.readings.activations import ActivationReading
from probegrid.readings.session import Respondent, Source, passages_of, read_layers
from probegrid.readings.spans import (
    ANSWER_POSITIONS,
    STATEMENT_POSITIONS,
    Passage,
    Position,
    answer_passages,
    check_position,
)

if TYPE_CHECKING:
    from torch import Tensor


def trained_outcome(source: Source, probe: TrainedProbe) -> Outcome:
    """Gather examples, read their activations where the probe needs them, train, test.

    Raises:
        ConfigError: a layer the model does not have, or a position that the dataset has not.
        DataError: examples that have no labels, or a split that lacks a class.
        RunError: an activation is not a finite number.
    """
    data, seed = source.data, source.config.seed
    if isinstance(probe, ActivationProbe):
        probe = probe.on_answers() if isinstance(data, QuestionSet) else probe
        _check_possible(probe, source)
    if isinstance(data, StatementSet):
        if not data.labelled:
            raise DataError(
                "these statements have no labels to learn from; set dataset.labelled=true or use action=score."
            )
        answers, leaks = None, data.leaks
    else:
        answers, leaks = _answers(source, data), ()
    if isinstance(probe, TextBaseline):
        outcome = text_outcome(probe, _text_examples(data, answers), leaks, seed=seed)
    elif isinstance(probe, ActivationProbe):
        passages = _passages(source, probe, answers)
        divided = Divided.of(examples_of(passages), probe)  # refused before activations are read
        reading = read_layers(source, passages, resolve_layers(probe.layers, source.checkpoint.blocks))
        outcome = activation_outcome(
            probe,
            divided,
            reading.layers,
            stack(reading),
            leaks,
            model=source.described,
            seed=seed,
        )
        outcome = replace(outcome, metrics={**outcome.metrics, **speed(reading)})
    else:
        raise ConfigError(f"{type(probe).__name__} is neither an activation probe nor the text baseline.")
    return (
        outcome if answers is None else replace(outcome, tables={**outcome.tables, **answer_tables(answers)})
    )


def _answers(source: Source, data: QuestionSet) -> JudgedAnswers:
    respondent = Respondent(source.config, source.checkpoint, source.open_model, source.progress)
    return read_judged_answers(respondent, data)


def _check_possible(probe: ActivationProbe, source: Source) -> None:
    """Refuse impossible layers and positions before anything is read, which may take hours.

    Raises:
        ConfigError: a layer the model does not have, or a position that the examples have not.
    """
    resolve_layers(probe.layers, source.checkpoint.blocks)
    answers = isinstance(source.data, QuestionSet)
    allowed, of = (ANSWER_POSITIONS, "answers") if answers else (STATEMENT_POSITIONS, "statements")
    check_position(Position(probe.positions), allowed, of)


def _passages(source: Source, probe: ActivationProbe, answers: JudgedAnswers | None) -> tuple[Passage, ...]:
    position = Position(probe.positions)
    if answers is not None:
        return answer_passages(answers.reading, answers.correct, position, context=source.checkpoint.context)
    assert isinstance(source.data, StatementSet)
    return passages_of(source.data, position, source.checkpoint, source.config.model)


def examples_of(passages: Sequence[Passage]) -> Examples:
    """The examples that are read of the passages, in order."""
    found = [example for passage in passages for example in passage.examples]
    return Examples(
        tuple(example.id for example in found),
        tuple(example.conversation for example in found),
        tuple(example.text for example in found),
        tuple(example.source for example in found),
        np.array([example.label for example in found]),
    )


def stack(reading: ActivationReading) -> Tensor:
    """All layers of a reading: [n, layers, d] bfloat16, on a GPU if there is one."""
    import torch

    values = torch.stack([reading.values(layer) for layer in reading.layers], dim=1)
    return values.cuda() if torch.cuda.is_available() else values


def speed(reading: ActivationReading) -> dict[str, float]:
    """``read_s``, ``tokens_per_s`` and ``examples_per_s`` of a reading."""
    seconds = max(reading.read_s, 1e-9)
    return {
        "read_s": reading.read_s,
        "tokens_per_s": reading.read_tokens / seconds,
        "examples_per_s": len(reading.examples) / seconds,
    }


def _text_examples(data: QuestionSet | StatementSet, answers: JudgedAnswers | None) -> Examples:
    """Examples for the text baseline: the statements, or each question with the answer the model gave."""
    if isinstance(data, StatementSet):
        found = [(talk.id, statement) for talk in data.conversations for statement in talk.statements]
        return Examples(
            tuple(statement.id for _, statement in found),
            tuple(conversation for conversation, _ in found),
            tuple(statement.text for _, statement in found),
            tuple(statement.source for _, statement in found),
            np.array([statement.label for _, statement in found]),
        )
    assert answers is not None
    questions, given = data.questions, answers.reading.greedy
    return Examples(
        tuple(question.id for question in questions),
        tuple(question.group or question.id for question in questions),
        tuple(f"{question.text} {answer.text}" for question, answer in zip(questions, given, strict=True)),
        ("",) * len(questions),
        np.array(answers.correct),
    )
