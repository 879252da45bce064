"""How well scores rank positives above negatives: ROC, precision-recall and risk-coverage.

A score is larger when the positive label (correct, true) is more likely. Tied scores are never put in order:
a threshold takes all of a tie or none of it, and where a fixed number of examples is kept the figure is the
mean over all orders of the tie.

Every metric takes weights, which are multiplicities: weight 2 equals the example given twice, 0 equals
leaving it out. A `Ranking` sorts once and then evaluates any number of weightings, a row each; that is what
makes the bootstrap cheap.

Shapes: n examples, g distinct scores, r weightings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import (
    BoolArray,
    FloatArray,
    as_labels,
    as_probabilities,
    as_scores,
    as_weights,
    ratio,
)

_ROUNDING = 1e-9  # 0.29 of 100 negatives are 29, though 0.29 * 100 is 28.999999999999996


@dataclass(frozen=True)
class RankCounts:
    """Weight accumulated from the highest score down; every metric is read off these two tables.

    What several metrics need is computed once.

    Attributes:
        positives: `float64[r, g + 1]`, weight of the positives at the 0, 1, ..., g highest distinct scores.
        totals: `float64[r, g + 1]`, weight of all examples at them.
    """

    positives: FloatArray
    totals: FloatArray

    @cached_property
    def negatives(self) -> FloatArray:
        """`float64[r, g + 1]`, weight of the negatives at the 0, 1, ..., g highest distinct scores."""
        return self.totals - self.positives

    def accuracy(self) -> FloatArray:
        """Share of positives: `float64[r]` in [0, 1]; `nan` where no example has weight."""
        return ratio(self.positives[:, -1], self.totals[:, -1])

    def auroc(self) -> FloatArray:
        """Probability that a positive outscores a negative, a tie counting one half: `float64[r]` in [0, 1].

        The Mann-Whitney statistic (Hanley & McNeil 1982). `nan` where one class has no weight.
        """
        negatives = self.negatives
        above = (self.positives[:, 1:] + self.positives[:, :-1]) / 2
        wins = np.einsum("rg,rg->r", np.diff(negatives, axis=1), above)
        return ratio(wins, negatives[:, -1] * self.positives[:, -1])

    def auprc(self) -> FloatArray:
        """Average precision, sum over thresholds of (recall gained) x (precision): `float64[r]` in [0, 1].

        No interpolation, as `sklearn.metrics.average_precision_score`; the chance level is the accuracy, not
        one half. `nan` where one class has no weight.
        """
        precision = np.nan_to_num(ratio(self.positives[:, 1:], self.totals[:, 1:]))
        gained = np.einsum("rg,rg->r", np.diff(self.positives, axis=1), precision)
        return np.where(self.negatives[:, -1] > 0, ratio(gained, self.positives[:, -1]), np.nan)

    def aurc(self) -> FloatArray:
        """Area under the risk-coverage curve: `float64[r]` in [0, 1], lower is better.

        The mean over k = 1..n of the error rate among the k highest scores, in expectation over random orders
        of tied scores: Geifman, Uziel & El-Yaniv (2019), "Bias-reduced uncertainty estimation for deep neural
        classifiers". `nan` where no example has weight.
        """
        return self._aurc

    @cached_property
    def _aurc(self) -> FloatArray:
        errors = np.diff(self.negatives, axis=1)
        area = _summed_risk(self.negatives[:, :-1], self.totals[:, :-1], errors, np.diff(self.totals, axis=1))
        return ratio(area.sum(axis=1), self.totals[:, -1])

    def excess_aurc(self) -> FloatArray:
        """AURC minus that of the best ranking at the same accuracy: `float64[r]` in [0, 1), lower is better.

        Geifman et al. (2019), E-AURC. With one class every ranking is the best one, so it is `nan`.
        """
        return np.where(self._has_both, self._aurc - self._optimal_aurc, np.nan)

    def augrc(self) -> FloatArray:
        """Area under the generalized risk-coverage curve: `float64[r]` in [0, 1/2], lower is better.

        Errors accepted over all examples, against coverage: Traub et al. (2024, arXiv 2407.01032). It is
        (1 - AUROC) accuracy error + error^2 / 2; half the error rate for a random ranking.
        """
        error = ratio(self.negatives[:, -1], self.totals[:, -1])
        misranked = np.where(self._has_both, 1 - self.auroc(), 0)
        return misranked * (1 - error) * error + error**2 / 2

    def prr(self) -> FloatArray:
        """Prediction-rejection ratio over all coverages: `float64[r]`, at most 1, about 0 for a random ranking.

        (error - AURC) / (error - AURC of the best ranking): LM-Polygraph's of correctness, the random ranking
        taken exactly. `nan` where one class has no weight.
        """
        error = ratio(self.negatives[:, -1], self.totals[:, -1])
        gained, gainable = error - self._aurc, error - self._optimal_aurc
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self._has_both, gained / gainable, np.nan)

    @cached_property
    def _optimal_aurc(self) -> FloatArray:
        correct, wrong = self.positives[:, -1], self.negatives[:, -1]
        return ratio(_summed_risk(np.zeros_like(correct), correct, wrong, wrong), self.totals[:, -1])

    @property
    def _has_both(self) -> BoolArray:
        held: BoolArray = (self.positives[:, -1] > 0) & (self.negatives[:, -1] > 0)
        return held

    def accuracy_at(self, coverage: ArrayLike) -> FloatArray:
        """Accuracy among the highest-scored fraction of the examples: `float64[r, k]` for `k` coverages.

        Exactly `coverage * n` examples are kept: the last one counts by a fraction where that is no whole
        number, and a tie at the edge counts by its mean. `nan` where no example has weight.

        Raises:
            ValueError: a coverage outside (0, 1].
        """
        coverages = np.atleast_1d(np.asarray(coverage, dtype=np.float64))
        if not ((coverages > 0) & (coverages <= 1)).all():
            raise ValueError(f"a coverage must lie in (0, 1], got {coverages.tolist()}")
        kept = coverages * self.totals[:, -1:]
        rows = zip(kept, self.totals, self.positives, strict=True)
        return ratio(np.stack([np.interp(*row) for row in rows]), kept)

    def recall_at_fpr(self, max_fpr: float = 0.01) -> FloatArray:
        """Highest recall of a threshold with a false positive rate up to `max_fpr`: `float64[r]` in [0, 1].

        `nan` where one class has no weight. With fewer than `1 / max_fpr` negatives no false positive is
        allowed.
        """
        negatives = self.negatives
        allowed = negatives <= negatives[:, -1:] * max_fpr * (1 + _ROUNDING)
        recall = ratio(np.where(allowed, self.positives, 0).max(axis=1), self.positives[:, -1])
        return np.where(negatives[:, -1] > 0, recall, np.nan)


def _summed_risk(
    errors_above: FloatArray, above: FloatArray, errors: FloatArray, size: FloatArray
) -> FloatArray:
    """Expected sum over j = 1..size of (errors_above + errors * j / size) / (above + j), element by element.

    These are the risks at each place within a tie of `size` examples holding `errors` errors, ranked below
    `above` examples. In closed form `errors + (errors_above - share * above) * (H(above + size) - H(above))`,
    where H is the harmonic number.
    """
    share = np.nan_to_num(ratio(errors, size))
    return errors + (errors_above - share * above) * (_harmonic(above + size) - _harmonic(above))


def _harmonic(numbers: FloatArray) -> FloatArray:
    """Harmonic numbers 1 + 1/2 + ... + 1/x, which digamma continues to fractional x.

    Multiplicities are whole, and a table of their sums is many times as fast.
    """
    from scipy.special import digamma

    whole = numbers.astype(np.intp)
    if not np.array_equal(whole, numbers):
        return np.asarray(digamma(numbers + 1) + np.euler_gamma)
    table = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, whole.max(initial=0) + 1))])
    return np.asarray(table[whole])


class Ranking:
    """Labels sorted by falling score.

    Args:
        labels: `bool[n]`, true for the positive class; graded, `float[n]` in [0, 1], how far each is positive.
        scores: `float[n]`, finite; larger when the positive label is more likely.
        is_graded: whether labels are grades, which count as that share of a positive.

    Raises:
        ValueError: shapes differ, a label is not true or false (a grade not in [0, 1]), or a score is not finite.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, *, is_graded: bool = False) -> None:
        unsorted_labels = as_probabilities(labels, np.size(labels)) if is_graded else as_labels(labels)
        unsorted_scores = as_scores(scores, len(unsorted_labels))
        self._order = np.argsort(-unsorted_scores, kind="stable")
        self._labels = unsorted_labels[self._order].astype(np.float64)
        self._tie_ends = np.cumsum(np.unique(-unsorted_scores, return_counts=True)[1]) - 1

    def counts(self, weights: ArrayLike | None = None) -> RankCounts:
        """Accumulate each weighting from the highest score down.

        Args:
            weights: `float[n]` or `float[r, n]` multiplicities in the examples' order; default all 1.

        Raises:
            ValueError: weights of another shape, negative or not finite.
        """
        sorted_weights = as_weights(weights, len(self._order))[:, self._order]
        return RankCounts(
            positives=self._accumulate(sorted_weights * self._labels), totals=self._accumulate(sorted_weights)
        )

    def _accumulate(self, sorted_weights: FloatArray) -> FloatArray:
        cumulative = np.zeros((len(sorted_weights), len(self._tie_ends) + 1))
        if len(self._tie_ends) == sorted_weights.shape[1]:  # no ties: nothing to pick, and no copy
            np.cumsum(sorted_weights, axis=1, out=cumulative[:, 1:])
        else:
            cumulative[:, 1:] = np.cumsum(sorted_weights, axis=1)[:, self._tie_ends]
        return cumulative


def auroc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve in [0, 1], chance 0.5; see `RankCounts.auroc`. `nan` with one class."""
    return float(Ranking(labels, scores).counts(weights).auroc()[0])


def auprc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Average precision in [0, 1]; see `RankCounts.auprc`. `nan` with one class."""
    return float(Ranking(labels, scores).counts(weights).auprc()[0])


def aurc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the risk-coverage curve in [0, 1], lower is better; see `RankCounts.aurc`."""
    return float(Ranking(labels, scores).counts(weights).aurc()[0])


def excess_aurc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """AURC above that of the best ranking, lower is better, `nan` with one class; see `RankCounts`."""
    return float(Ranking(labels, scores).counts(weights).excess_aurc()[0])


def accuracy_at(
    labels: ArrayLike, scores: ArrayLike, coverage: float, weights: ArrayLike | None = None
) -> float:
    """Accuracy among the highest-scored fraction `coverage` of the examples; see `RankCounts.accuracy_at`."""
    return float(Ranking(labels, scores).counts(weights).accuracy_at(coverage)[0, 0])


def augrc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Area under the generalized risk-coverage curve in [0, 1/2], lower is better; see `RankCounts.augrc`."""
    return float(Ranking(labels, scores).counts(weights).augrc()[0])


def prr(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Prediction-rejection ratio, at most 1; see `RankCounts.prr`. `nan` with one class."""
    return float(Ranking(labels, scores).counts(weights).prr()[0])


def recall_at_fpr(
    labels: ArrayLike, scores: ArrayLike, max_fpr: float = 0.01, weights: ArrayLike | None = None
) -> float:
    """Recall at a false positive rate up to `max_fpr`, `nan` with one class; see `RankCounts`."""
    return float(Ranking(labels, scores).counts(weights).recall_at_fpr(max_fpr)[0])


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """False and true positive rates at every threshold, `float64[g + 1]` each, from (0, 0) to (1, 1).

    All `nan` along the axis of a class that is absent.
    """
    counts = Ranking(labels, scores).counts()
    negatives, positives = counts.negatives[0], counts.positives[0]
    return ratio(negatives, negatives[-1:]), ratio(positives, positives[-1:])


def risk_coverage_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Coverages k / n and error rates among the k highest scores for k = 1..n, `float64[n]` each.

    Within a tie the risk is the mean over all orders of the tie; the mean of the risks is the AURC.
    """
    n = np.size(labels)
    coverage = np.arange(1, n + 1) / n
    return coverage, 1 - Ranking(labels, scores).counts().accuracy_at(coverage)[0]
