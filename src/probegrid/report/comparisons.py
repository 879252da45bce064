"""Paired comparisons of cells on the examples they share: differences, intervals, p-values, agreement of answers.

Knows the scores and answers of pairs of cells, and evaluation; must not know how pairs are found, nor files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from probegrid.evaluation.agreement import Agreement, agreement
from probegrid.evaluation.checks import BoolArray, FloatArray, ratio
from probegrid.evaluation.intervals import Difference, Metrics, holm, paired_difference
from probegrid.evaluation.ranking import Ranking
from probegrid.evaluation.splits import joined_groups
from probegrid.report.cells import RecordedCell
from probegrid.report.pairing import Pair, Unpaired, find_pairs

if TYPE_CHECKING:
    import pandas as pd

SAME_ANSWERS = "same answers"
DIFFERENT_ACCURACIES = "of answers against of calls"
_FEWEST = 2


@dataclass(frozen=True)
class Comparison:
    """Two cells on the examples that both were tested on; every difference is first - second.

    Attributes:
        pair: the cells.
        n: examples shared.
        auroc: of each cell's own scores against its own labels. Two models are right on different questions: each
            area is of its own labels, and the two are paired in that a resample draws the same examples for both.
        accuracy: `None` where there is nothing to compare, for the reason in ``accuracy_note``.
        accuracy_note: why not; empty where there is a difference.
        answers: how far the answers themselves agree; `None` where a cell has none, or both are the same reading.
        auroc_p_holm, accuracy_p_holm: p-values corrected over all comparisons; `nan` where there is none.
    """

    pair: Pair
    n: int
    auroc: Difference
    accuracy: Difference | None
    accuracy_note: str
    answers: Agreement | None
    auroc_p_holm: float = float("nan")
    accuracy_p_holm: float = float("nan")


@dataclass(frozen=True)
class Comparisons:
    """All comparisons in one group or key.

    Attributes:
        compared: the group or key.
        made: the comparisons.
        not_made: what could not be compared, with the reason.
        n_tests: p-values that Holm's correction counts. Comparisons of the same numbers (probes that share their
            answers share their accuracy) are one test.
    """

    compared: str
    made: Sequence[Comparison]
    not_made: Sequence[Unpaired]
    n_tests: int


def compare_cells(
    cells: Sequence[RecordedCell], compared: str, *, seed: int, resamples: int = 2000
) -> Comparisons:
    """Compare every two cells that differ in one group or key alone.

    Args:
        cells: those that ended well.
        compared: the group or key.
        seed: of the resampling alone.
        resamples: number of bootstrap resamples behind each comparison.

    Raises:
        ConfigError: no such group or key, or all cells have the same.
    """
    pairs, not_made = find_pairs(cells, compared)
    made: list[Comparison] = []
    tests: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        shared = _Shared.of(pair)
        if reason := shared.obstacle():
            not_made.append(Unpaired((pair.first, pair.second), reason))
        else:
            made.append(shared.compare(seed=seed, resamples=resamples))
            tests.append(shared.fingerprints())
    corrected, n_tests = _corrected(made, tests)
    return Comparisons(compared, corrected, not_made, n_tests)


def _corrected(
    made: Sequence[Comparison], tests: Sequence[tuple[bytes, bytes]]
) -> tuple[list[Comparison], int]:
    """Holm's correction over all p-values, those of the same numbers once."""
    p_values: dict[bytes, float] = {}
    for comparison, (accuracy, area) in zip(made, tests, strict=True):
        p_values[area] = comparison.auroc.p_value
        if comparison.accuracy is not None:
            p_values[accuracy] = comparison.accuracy.p_value
    adjusted = dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))
    corrected = [
        replace(
            comparison,
            auroc_p_holm=adjusted[area],
            accuracy_p_holm=float("nan") if comparison.accuracy is None else adjusted[accuracy],
        )
        for comparison, (accuracy, area) in zip(made, tests, strict=True)
    ]
    return corrected, int(np.count_nonzero(~np.isnan(list(p_values.values()))))


@dataclass(frozen=True)
class _Shared:
    """The test examples of two cells, joined by example_id: columns group, label, score and answer of each."""

    pair: Pair
    first: pd.DataFrame
    second: pd.DataFrame

    @classmethod
    def of(cls, pair: Pair) -> _Shared:
        ids = pair.first.scores.index.intersection(pair.second.scores.index, sort=False)
        return cls(pair, pair.first.scores.loc[ids], pair.second.scores.loc[ids])

    def obstacle(self) -> str | None:
        """Why the two cannot be compared, if they cannot."""
        if len(self.first) < _FEWEST:
            return f"{len(self.first)} test examples in common"
        if not (self.pair.first.has_one_scale and self.pair.second.has_one_scale):
            return "scores of several folds, each on a scale of its own"
        return None

    def compare(self, *, seed: int, resamples: int) -> Comparison:
        groups = joined_groups(self.first["group"].tolist(), self.second["group"].tolist())
        first, second = (_metrics(*columns) for columns in self._columns())
        found = paired_difference(first, second, len(self.first), groups, seed=seed, resamples=resamples)
        answers, note = self._answers(), ""
        if self.pair.first.is_trained != self.pair.second.is_trained:
            note = DIFFERENT_ACCURACIES
        elif answers is not None and answers.same_text == 1 and not self.pair.first.is_trained:
            note = SAME_ANSWERS
        return Comparison(
            pair=self.pair,
            n=len(self.first),
            auroc=found["auroc"],
            accuracy=None if note else found["accuracy"],
            accuracy_note=note,
            answers=answers,
        )

    def fingerprints(self) -> tuple[bytes, bytes]:
        """What the difference in accuracy, and that in AUROC, are computed from."""
        examples = "\n".join(self.first.index).encode()
        (labels, scores, right), (other_labels, other_scores, other_right) = self._columns()
        accuracy = (right.tobytes(), other_right.tobytes())
        area = (labels.tobytes(), scores.tobytes(), other_labels.tobytes(), other_scores.tobytes())
        return b"".join((examples, *accuracy)), b"".join((examples, *area))

    def _columns(self) -> list[tuple[BoolArray, FloatArray, BoolArray]]:
        """Labels, scores, and what accuracy counts: of each cell."""
        columns = []
        for cell, table in ((self.pair.first, self.first), (self.pair.second, self.second)):
            labels = table["label"].to_numpy(dtype=np.bool_)
            scores = table["score"].to_numpy(dtype=np.float64)
            columns.append(
                (labels, scores, (scores > cell.threshold) == labels if cell.is_trained else labels)
            )
        return columns

    def _answers(self) -> Agreement | None:
        first, second = self.pair.first.answers, self.pair.second.answers
        if first is None or second is None:
            return None
        ids = self.first.index
        return agreement(
            first.loc[ids, "answer"].tolist(),
            second.loc[ids, "answer"].tolist(),
            first.loc[ids, "correct"].to_numpy(dtype=np.bool_),
            second.loc[ids, "correct"].to_numpy(dtype=np.bool_),
        )


def _metrics(labels: BoolArray, scores: FloatArray, right: BoolArray) -> Metrics:
    ranking = Ranking(labels, scores)

    def metrics(weights: FloatArray) -> dict[str, FloatArray]:
        return {
            "auroc": ranking.counts(weights).auroc(),
            "accuracy": ratio(weights @ right, weights.sum(axis=1)),
        }

    return metrics
