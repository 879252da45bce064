"""Statements a trained probe is tested on besides its own: what it says of them, and the transfer table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probegrid.cell.examples import examples_of_statements
from probegrid.evaluation.classification import evaluate_classification
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

    def summary(self, *, seed: int) -> Summary | None:
        """All numbers of a labelled set, each with its interval clustered by conversation; None without labels."""
        if not self.labelled:
            return None
        examples = self.examples
        return evaluate_classification(
            examples.labels,
            self.scores,
            self.probabilities,
            examples.conversations,
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
    reading = session.activations(statements.passages, [saved.layer])
    scores = saved.scores(reading.values(saved.layer))
    return Scored(
        examples_of_statements(statements.data),
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
        named among the others or not, is a row of the table by its test split.
    """
    import pyarrow as pa

    saved, trained_on = SavedProbe.from_files(outcome.files), cell.spec.choices.dataset
    rows, metrics = [], dict(outcome.metrics)
    for name in dict.fromkeys([trained_on, *cell.transfer]):
        if name == trained_on:  # by the test split, as in the cell's own numbers
            values = outcome.metrics
        else:
            summary = score_statements(session, saved, cell.transfer[name]).summary(seed=cell.config.seed)
            assert summary is not None
            values = summary.metrics
            metrics |= {
                f"transfer_auroc_{name}{end}": values[f"auroc{end}"] for end in ("", "_ci_low", "_ci_high")
            }
        kept = ("n", "auroc", "auroc_ci_low", "auroc_ci_high", "accuracy")
        rows.append(
            {"trained_on": trained_on, "tested_on": name, **{metric: values[metric] for metric in kept}}
        )
    return replace(
        outcome, metrics=metrics, tables={**outcome.tables, "transfer": pa.Table.from_pylist(rows)}
    )
