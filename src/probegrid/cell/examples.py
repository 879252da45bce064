"""The labelled examples of a trained probe, and how it divides them.

Knows statements, questions with answers, and divisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probegrid.data.example import StatementSet, have_one_class
from probegrid.errors import DataError
from probegrid.evaluation.splits import Division, divide
from probegrid.probes.training import Examples

if TYPE_CHECKING:
    import pyarrow as pa

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


def statements_table(data: StatementSet) -> pa.Table:
    """``statements.parquet``: a row a statement, in order, its text and where it stands in its conversation.

    ``passage`` is the content of the message that holds it, of which ``char_start`` and ``char_end`` are places;
    ``before`` are the messages before that one.
    """
    import pyarrow as pa

    found = [(talk, one) for talk in data.conversations for one in talk.statements]
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.table(
        {
            "example_id": pa.array([one.id for _, one in found], pa.string()),
            "conversation": pa.array([talk.id for talk, _ in found], pa.string()),
            "text": pa.array([one.text for _, one in found], pa.string()),
            "source": pa.array([one.source for _, one in found], pa.string()),
            "char_start": pa.array([one.char_start for _, one in found], pa.int32()),
            "char_end": pa.array([one.char_end for _, one in found], pa.int32()),
            "passage": pa.array([talk.messages[-1].content for talk, _ in found], pa.string()),
            "before": pa.array(
                [[asdict(turn) for turn in talk.messages[:-1]] for talk, _ in found], pa.list_(message)
            ),
        }
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
