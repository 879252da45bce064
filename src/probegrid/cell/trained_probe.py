"""What a cell finds whose probe is trained: on statements, or on the model's own answers.

Knows prepared cells and what was read for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from probegrid.cell.answer_probe import (
    ScoreTable,
    answer_tables,
    area_metrics,
    extraction_metrics,
    reading_metrics,
)
from probegrid.cell.evidence import Asked
from probegrid.cell.examples import Divided, examples_of_answers, statements_table
from probegrid.cell.gather import Gathered, JudgedAnswers, entailments_of
from probegrid.cell.others import other_scores
from probegrid.cell.shared_words import SharedWords
from probegrid.cell.trained_outcome import Read, trained_outcome
from probegrid.cell.transfer import with_transfer
from probegrid.data.example import StatementSet
from probegrid.evaluation.splits import TEST
from probegrid.judges.clustering import clusters_of
from probegrid.judges.entropies import discrete_semantic_entropy
from probegrid.readings.identity import anywhere

if TYPE_CHECKING:
    from probegrid.cell.cell import Cell
    from probegrid.cell.outcome import Outcome
    from probegrid.probes import TrainedProbe
    from probegrid.readings.session import ModelSession


def outcome_of_trained(
    cell: Cell, probe: TrainedProbe, gathered: Gathered, session: ModelSession | None
) -> Outcome:
    """Train the probe on what was read, test it, and test it on the transfer sets.

    Args:
        cell: what was read; its division where the labels were known before.
        probe: what is fitted.
        gathered: everything that its needs named.
        session: the model; None where none is read.

    Raises:
        DataError: a split lacks a class.
    """
    answers, examples = gathered.answers, cell.examples
    divided = cell.divided
    if answers is not None:
        entropies = _entropies(cell, answers, session)
        divided = Divided.of(examples_of_answers(answers.reading, answers.correct, entropies), probe)
    assert divided is not None
    leaks = examples.leaks if isinstance(examples, StatementSet) else ()
    outcome = trained_outcome(probe, divided, _read(cell, gathered, session), leaks, seed=cell.config.seed)
    if gathered.hidden is not None:
        outcome = replace(
            outcome, metrics={**outcome.metrics, **gathered.hidden.metrics(), "read_s": gathered.read_s}
        )
    if answers is not None:
        of_answers = extraction_metrics(answers)
        if gathered.hidden is None:
            of_answers = reading_metrics(answers, cell.config.seed) | {"read_s": gathered.read_s}
        outcome = replace(
            outcome,
            metrics={**of_answers, **outcome.metrics},
            tables={**outcome.tables, **answer_tables(cell, answers)},
        )
        if session is not None:
            outcome = _with_judges(outcome, cell, gathered, session)
    if isinstance(examples, StatementSet):
        outcome = replace(outcome, tables={**outcome.tables, "statements": statements_table(examples)})
    if cell.transfer and session is not None:
        outcome = with_transfer(outcome, cell, session)
    return outcome


def _entropies(cell: Cell, answers: JudgedAnswers, session: ModelSession | None) -> list[float] | None:
    """The discrete semantic entropy of each question's samples, where the probe learns from them."""
    if cell.needs.samples < _FEWEST_COMPARED or session is None:
        return None
    samples = [[one.text for one in found[1:]] for found in answers.reading.generations]
    with entailments_of(cell, session, answers) as relates:
        return [discrete_semantic_entropy(row) for row in clusters_of(answers.data, samples, relates)]


_FEWEST_COMPARED = 2


def _with_judges(outcome: Outcome, cell: Cell, gathered: Gathered, session: ModelSession) -> Outcome:
    """What the judges say of the same answers, that the readings allow: their AUROC on the probe's test examples."""
    answers = gathered.answers
    assert answers is not None
    with entailments_of(cell, session, answers) as relates:
        others = other_scores(cell, gathered, Asked(relates, SharedWords()))
    table = ScoreTable(answers.data.questions, answers.correct, [0.0] * len(answers.correct), others.columns)
    splits = outcome.tables["scores"]["split"].to_pylist()
    metrics, notes = area_metrics(
        table.only([row for row, split in enumerate(splits) if split == TEST]), cell.config.seed
    )
    beside = {"other_scores": table.to_tables()["other_scores"], "judges": others.table()}
    return replace(
        outcome,
        metrics={**metrics, **outcome.metrics},
        notes={**notes, **outcome.notes},
        tables={**outcome.tables, **beside},
    )


def _read(cell: Cell, gathered: Gathered, session: ModelSession | None) -> Read:
    if gathered.hidden is None or session is None or cell.needs.hidden is None:
        return Read()
    return Read(cell.layers, gathered.hidden.stack(), cell.needs.hidden.position, anywhere(session.described))
