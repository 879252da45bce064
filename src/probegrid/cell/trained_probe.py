"""What a cell finds whose probe is trained: on statements, or on the model's own answers.

Knows prepared cells and what was read for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from probegrid.cell.answer_probe import answer_tables, extraction_metrics, reading_metrics
from probegrid.cell.examples import Divided, examples_of_answers
from probegrid.cell.gather import Gathered
from probegrid.cell.trained_outcome import Read, trained_outcome
from probegrid.cell.transfer import with_transfer
from probegrid.data.example import StatementSet
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
        divided = Divided.of(examples_of_answers(answers.reading, answers.correct), probe)
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
            tables={**outcome.tables, **answer_tables(answers)},
        )
    if cell.transfer and session is not None:
        outcome = with_transfer(outcome, cell, session)
    return outcome


def _read(cell: Cell, gathered: Gathered, session: ModelSession | None) -> Read:
    if gathered.hidden is None or session is None or cell.needs.hidden is None:
        return Read()
    return Read(cell.layers, gathered.hidden.stack(), cell.needs.hidden.position, anywhere(session.described))
