"""Statements a trained probe is tested on besides its own: what it says of them, and the transfer table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probegrid.cell.trained_probe import examples_of
from probegrid.data.example import StatementSet
from probegrid.errors import ConfigError, DataError
from probegrid.evaluation.classification import evaluate_classification
from probegrid.probes.saved import SavedProbe
from probegrid.probes.training import Examples
from probegrid.readings.session import Source, passages_of, read_layers
from probegrid.readings.spans import Position

if TYPE_CHECKING:
    import pyarrow as pa

    from probegrid.cell.outcome import Outcome
    from probegrid.evaluation.checks import FloatArray
    from probegrid.evaluation.summary import Summary


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


def score_statements(source: Source, saved: SavedProbe, statements: StatementSet) -> Scored:
    """Read the saved probe's layer on a set of statements and score each."""
    passages = passages_of(statements, Position(saved.positions), source.checkpoint, source.config.model)
    reading = read_layers(source, passages, [saved.layer])
    scores = saved.scores(reading.values(saved.layer))
    return Scored(
        examples_of(passages), scores, saved.probabilities(scores), saved.threshold, statements.labelled
    )


def with_transfer(
    outcome: Outcome, source: Source, others: Mapping[str, StatementSet], trained_on: str, *, seed: int
) -> Outcome:
    """Test the probe that was just trained on other datasets: a row of the matrix train set x test set.

    Args:
        outcome: of the training, with the saved probe.
        source: the model.
        others: labelled statements by name.
        trained_on: name of the dataset that was trained on.
        seed: of the intervals.

    Returns:
        The outcome with ``transfer_auroc_<name>`` of each dataset, and ``transfer.parquet``. The probe's own dataset,
        named among the others or not, is a row of the table by its test split.

    Raises:
        DataError: one of the others has no labels.
        ConfigError: one of the others has the name of the dataset that was trained on but other content.
    """
    import pyarrow as pa

    own = others.get(trained_on)
    if own is not None and own.fingerprint != source.data.fingerprint:
        raise ConfigError(
            f"probe.test_on names another {trained_on} (file or draw) than the dataset that is trained on, so that "
            "examples of both could be the same; drop it, or rename its file if it has nothing in common."
        )
    saved = SavedProbe.from_files(outcome.files)
    rows, metrics = [], dict(outcome.metrics)
    for name in dict.fromkeys([trained_on, *others]):
        if name == trained_on:  # by the test split, as in the cell's own numbers
            values = outcome.metrics
        else:
            summary = score_statements(source, saved, others[name]).summary(seed=seed)
            if summary is None:
                raise DataError(f"probe.test_on={name} has no labels to test on.")
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
