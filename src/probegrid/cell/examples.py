"""The labelled examples of a trained probe, and how it divides them.

Knows statements, questions with answers, and divisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probegrid.data.example import StatementSet, have_one_class
from probegrid.errors import DataError
from probegrid.evaluation.splits import Division, divide
from probegrid.probes.training import Examples

if TYPE_CHECKING:
    from probegrid.probes import TrainedProbe
    from probegrid.readings.answers import AnswerReading


_APART = 1_000_003  # between the seeds of repeats, so that neighbouring seeds of a sweep share none


def examples_of_statements(data: StatementSet) -> Examples:
    """Every statement, in order, with its label."""
    found = [
        (talk.group or talk.id, statement) for talk in data.conversations for statement in talk.statements
    ]
    return Examples(
        tuple(statement.id for _, statement in found),
        tuple(conversation for conversation, _ in found),
        tuple(statement.text for _, statement in found),
        tuple(statement.source for _, statement in found),
        np.array([statement.label for _, statement in found]),
        tuple(talk.group for talk in data.conversations for _ in talk.statements),
    )


def check_both_classes(data: StatementSet) -> None:
    """Refuse statements of one class, from which nothing can be learnt.

    Raises:
        DataError: all are labelled alike.
    """
    if not have_one_class(data.conversations):
        return
    labels = [statement.label for talk in data.conversations for statement in talk.statements]
    had, lacked = ("true", "false") if labels[0] else ("false", "true")
    mend = (
        f"give a dataset that has {lacked} ones as well, or look whether its labels are read from the right column"
        if data.has_one_class
        else "raise dataset.num_samples or change dataset.seed"
    )
    raise DataError(
        f"all {len(labels)} statements are labelled {had}, and a probe learns from true and false ones: {mend}."
    )


def examples_of_answers(
    reading: AnswerReading, correct: Sequence[bool], entropies: Sequence[float] | None = None
) -> Examples:
    """Every question with the model's greedy answer; the label is whether it is correct.

    Args:
        reading: the answers.
        correct: whether each greedy one is.
        entropies: of the samples of each question.
    """
    questions = [prompt.question for prompt in reading.prompts]
    return Examples(
        tuple(question.id for question in questions),
        tuple(question.group or question.id for question in questions),
        tuple(
            f"{question.text} {answer.text}"
            for question, answer in zip(questions, reading.greedy, strict=True)
        ),
        ("",) * len(questions),
        np.array(correct),
        are_statements=False,
        entropies=None if entropies is None else np.array(entropies, dtype=np.float64),
    )


@dataclass(frozen=True)
class Divided:
    """Examples and how the probe divides them."""

    examples: Examples
    division: Division

    @classmethod
    def of(cls, examples: Examples, probe: TrainedProbe, *, repeat: int = 0) -> Divided:
        """Divide as the probe asks; a repeat is a division by another seed.

        Raises:
            DataError: a split lacks a class, or there is a single source to leave out.
        """
        division = divide(
            probe.split,
            examples.labels,
            examples.conversations,
            examples.texts,
            examples.sources,
            seed=probe.seed + repeat * _APART,
            groups=examples.groups or None,
            by_subject=examples.are_statements,
            folds=probe.folds,
        )
        return cls(examples, division)

    def groups_of(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
        """The group of each of these examples."""
        return [str(self.division.groups[row]) for row in rows]
