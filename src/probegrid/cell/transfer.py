"""Statements a trained probe is tested on besides its own: what it says of them, and the transfer table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from probegrid.cell.examples import examples_of_statements
from probegrid.evaluation.checks import BoolArray
from probegrid.evaluation.classification import evaluate_classification
from probegrid.evaluation.links import Links
from probegrid.evaluation.splits import TRAIN, VALIDATION
from probegrid.probes.saved import SavedProbe
from probegrid.probes.training import Examples

if TYPE_CHECKING:
    import pyarrow as pa

    from probegrid.cell.cell import Cell, Statements
    from probegrid.cell.outcome import Outcome
    from probegrid.evaluation.checks import FloatArray
    from probegrid.evaluation.summary import Summary
    from probegrid.readings.session import ModelSession


@dataclass(frozen=True)
class Scored:
    """What a saved probe says of n statements.

    Attributes:
        examples: the statements.
        scores: float64[n], larger where true is more likely.
        probabilities: float64[n], of true.
        threshold: a score above it is called true.
        labelled: whether the labels are known.
    """

    examples: Examples
    scores: FloatArray
    probabilities: FloatArray
    threshold: float
    labelled: bool

    def only(self, kept: BoolArray) -> Scored:
        """The statements of ``kept``, `bool[n]`, alone."""
        rows = np.flatnonzero(kept)
        examples = self.examples
        return replace(
            self,
            examples=Examples(
                tuple(examples.ids[row] for row in rows),
                tuple(examples.conversations[row] for row in rows),
                tuple(examples.texts[row] for row in rows),
                tuple(examples.sources[row] for row in rows),
                examples.labels[rows],
                tuple(examples.groups[row] for row in rows) if examples.groups else (),
            ),
            scores=self.scores[rows],
            probabilities=self.probabilities[rows],
        )

    def summary(self, *, seed: int) -> Summary | None:
        """All numbers of a labelled set, intervals clustered by what statements share; None without labels."""
        if not self.labelled:
            return None
        examples = self.examples
        links = Links.of(
            examples.conversations,
            examples.texts,
            examples.sources,
            examples.groups or [""] * len(examples.ids),
            by_subject=examples.are_statements,
        )
        groups = examples.conversations if links.is_one else [str(group) for group in links.components()]
        return evaluate_classification(
            examples.labels,
            self.scores,
            self.probabilities,
            groups,
            examples.conversations,
            self.threshold,
            seed=seed,
        )

    def tables(self) -> dict[str, pa.Table]:
        """``scores.parquet`` as of every cell, and ``statements.parquet`` with the texts."""
        import pyarrow as pa

        examples, n = self.examples, len(self.scores)
        labels = examples.labels if self.labelled else [None] * n
        scores = {
            "example_id": pa.array(examples.ids, pa.string()),
            "group": pa.array(examples.conversations, pa.string()),
            "split": pa.array(["test"] * n, pa.string()),
            "label": pa.array(labels, pa.bool_()),
            "score": pa.array(self.scores, pa.float64()),
        }
        statements = {
            "example_id": scores["example_id"],
            "text": pa.array(examples.texts, pa.string()),
            "score": scores["score"],
            "probability": pa.array(self.probabilities, pa.float64()),
            "called_true": pa.array(self.scores > self.threshold, pa.bool_()),
        }
        return {"scores": pa.table(scores), "statements": pa.table(statements)}


def score_statements(session: ModelSession, saved: SavedProbe, statements: Statements) -> Scored:
    """Read the saved probe's layer on a set of statements and score each."""
    reading = session.activations(statements.passages, saved.reads)
    activations = reading.stack() if saved.joined else reading.values(saved.layer)
    examples = examples_of_statements(statements.data)
    scores = saved.scores(activations, examples.texts)
    return Scored(
        examples,
        scores,
        saved.probabilities(scores),
        saved.threshold,
        statements.data.labelled,
    )


def with_transfer(outcome: Outcome, cell: Cell, session: ModelSession) -> Outcome:
    """Test the probe that was just trained on other datasets: a row of the matrix train set x test set.

    Args:
        outcome: of the training, with the saved probe.
        cell: with the other datasets, which have labels.
        session: the model.

    Returns:
        The outcome with ``transfer_auroc_<name>`` of each dataset, and ``transfer.parquet``. The probe's own dataset,
        named among the others or not, is a row of the table by its test split. How much of another dataset the probe
        learned from, whatever its file is called, is noted, and ``transfer_auroc_<name>_unseen`` is of the rest.
    """
    import pyarrow as pa

    saved, trained_on = SavedProbe.from_files(outcome.files), cell.spec.choices.dataset
    rows, metrics, notes = [], dict(outcome.metrics), dict(outcome.notes)
    for name in dict.fromkeys([trained_on, *cell.transfer]):
        if name == trained_on:  # by the test split, as in the cell's own numbers
            values = outcome.metrics
        else:
            scored = score_statements(session, saved, cell.transfer[name])
            unseen, note = _unseen(scored.examples, cell)
            summary = scored.summary(seed=cell.config.seed)
            assert summary is not None
            values = summary.metrics
            kept = {f"transfer_auroc_{name}": values}
            if note:
                notes[f"transfer_auroc_{name}"] = note
                of_unseen = scored.only(unseen).summary(seed=cell.config.seed) if unseen.any() else None
                kept[f"transfer_auroc_{name}_unseen"] = of_unseen.metrics if of_unseen else {}
            for metric, found in kept.items():
                metrics |= {
                    f"{metric}{end}": found.get(f"auroc{end}", float("nan"))
                    for end in ("", "_ci_low", "_ci_high")
                }
        columns = ("n", "auroc", "auroc_ci_low", "auroc_ci_high", "accuracy")
        rows.append(
            {"trained_on": trained_on, "tested_on": name, **{metric: values[metric] for metric in columns}}
        )
    return replace(
        outcome,
        metrics=metrics,
        notes=notes,
        tables={**outcome.tables, "transfer": pa.Table.from_pylist(rows)},
    )


def _unseen(others: Examples, cell: Cell) -> tuple[BoolArray, str]:
    """Which statements of another dataset, whatever its file is called, the probe learned nothing of; a note."""
    if cell.divided is None or not cell.divided.examples.are_statements:
        return np.ones(len(others.ids), dtype=bool), ""
    own, folds = cell.divided.examples, cell.divided.division.folds
    learned = np.zeros(len(own.ids), dtype=bool)
    for fold in folds:
        learned |= np.isin(fold.parts, (TRAIN, VALIDATION))
    return unseen(others, Learned(own.conversations, own.texts, own.sources, learned))


@dataclass(frozen=True)
class Learned:
    """The n statements of the cell that trained a probe.

    Attributes:
        conversations, texts, sources: a string each.
        is_learned: bool[n], whether the probe was fitted on it or chosen by it.
    """

    conversations: Sequence[str]
    texts: Sequence[str]
    sources: Sequence[str]
    is_learned: BoolArray


def unseen(others: Examples, own: Learned) -> tuple[BoolArray, str]:
    """Which statements a probe learned nothing of, bool[n]; and what is to be said where it learned of some.

    Args:
        others: n statements that it scores.
        own: those of the cell that trained it.
    """
    n, trained = len(others.ids), len(own.texts)
    links = Links.of(
        [*(f"own {name}" for name in own.conversations), *(f"other {name}" for name in others.conversations)],
        [*own.texts, *others.texts],
        [*own.sources, *others.sources],
        [""] * (trained + n),
        by_subject=True,
    )
    is_other = np.arange(trained + n) >= trained
    from_own = np.concatenate([own.is_learned, np.zeros(n, dtype=bool)])
    same = links.shared(is_other, from_own, kinds=("text",))[trained:]
    kinds = ("text", "negated", "copy", "about", "frame")
    about = links.shared(is_other, from_own, kinds=kinds)[trained:]
    said = [
        f"leaky: {share:.0%} of its {n} statements {what}"
        for share, what in (
            (same.mean(), "are word for word among those the probe learned from"),
            ((about & ~same).mean(), "are about what one of those is about"),
        )
        if share > 0
    ]
    return ~about, "; ".join(said)
