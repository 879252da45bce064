"""The middle of a cell whose probe is trained: examples and their activations, from statements or from own answers.

Knows how examples come from a dataset and a model; must not know how a probe is fitted or evaluated, nor how a cell is
recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probegrid.answer_cell import JudgedAnswers, answer_tables, read_judged_answers
from probegrid.data.example import QuestionSet, StatementSet
from probegrid.errors import ConfigError, DataError
from probegrid.identity import describe_model
from probegrid.models.load import load_tokenizer
from probegrid.models.truncation import TruncatedModel
from probegrid.outcome import Outcome
from probegrid.probe_outcome import Divided, activation_outcome, text_outcome
from probegrid.probes import ActivationProbe, TrainedProbe, resolve_layers
from probegrid.probes.text_baseline import TextBaseline
from probegrid.readings.activations import ActivationReading, read_activations
from probegrid.readings.prompts import ChatTemplate
from probegrid.readings.spans import (
    ANSWER_POSITIONS,
    STATEMENT_POSITIONS,
    Passage,
    Position,
    answer_passages,
    check_position,
    statement_passages,
)
from probegrid.respondent import Respondent
from probegrid.training import Examples

if TYPE_CHECKING:
    from torch import Tensor

    from probegrid.models.checkpoint import Checkpoint
    from probegrid.models.load import LoadedModel
    from probegrid.progress import Progress
    from probegrid.schema import Config, ModelConfig


class OpensModel(Protocol):
    """Loads a model when it is needed: whole, or as many blocks as a layer needs."""

    def __call__(self, deepest_layer: int | None = None) -> LoadedModel:
        """The model."""
        ...


@dataclass(frozen=True)
class Source:
    """Where the examples of a trained probe come from."""

    config: Config
    checkpoint: Checkpoint
    data: QuestionSet | StatementSet
    open_model: OpensModel
    progress: Progress

    @property
    def described(self) -> dict[str, Any]:
        """What determines the activations of a token sequence."""
        return describe_model(self.checkpoint, self.config.model, self.config.quantization.method)


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


def passages_of(
    data: StatementSet, position: Position, checkpoint: Checkpoint, model: ModelConfig
) -> tuple[Passage, ...]:
    """Render, tokenize and locate: conversations use the tokenizer's own template wherever it has one."""
    tokenizer = load_tokenizer(checkpoint, model)
    own = "default" if tokenizer.chat_template else None
    template = ChatTemplate(tokenizer, model.chat_template or own)
    return statement_passages(data, position, tokenizer, template, context=checkpoint.context)


def read_layers(source: Source, passages: Sequence[Passage], layers: Sequence[int]) -> ActivationReading:
    """Read (or fetch from the store) some layers of some passages."""
    config = source.config

    def open_model(deepest_layer: int) -> LoadedModel:
        loaded = source.open_model(deepest_layer)
        if isinstance(loaded, TruncatedModel):
            source.progress.say(loaded.note)
        return loaded

    return read_activations(
        passages,
        layers,
        description=source.described,
        store_dir=config.store_dir,
        open_model=open_model,
        progress=source.progress,
    )


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
