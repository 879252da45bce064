"""All numbers of a trained probe on its test split, each with its interval, and the AUROC of every layer.

Labels, scores and groups are those of the test split; what was chosen (layer, penalty, threshold) was chosen without
it, see `selection`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.average_precision import auprc_ends
from probegrid.evaluation.calibration import Calibration
from probegrid.evaluation.checks import BoolArray, FloatArray, as_labels, as_scores, ratio
from probegrid.evaluation.intervals import Estimate, Metrics, Resampled, resampled
from probegrid.evaluation.miscalibration import miscalibration
from probegrid.evaluation.ranking import Ranking
from probegrid.evaluation.recall import recall_ends
from probegrid.evaluation.selective import (
    RISK,
    SELECTIVE,
    coverage_at_risk,
    risk_estimates,
    selective_ends,
    selective_metrics,
)
from probegrid.evaluation.shares import Ends, Standing, few_wilson, ranked_ends, share_ends
from probegrid.evaluation.summary import (
    NO_INTERVAL,
    SAFE_SIDE,
    Summary,
    area_interval,
    calibration_numbers,
    few_note,
    with_ties,
)

_FPR = 0.01
_FEWEST_FOR_FPR = 368  # of which fewer than one lies beyond the 99th percentile with a probability up to 2.5%
_MANY_FOR_FPR = 2000  # from which on the interval holds the truth no more than 97% of the time


def classification_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    probabilities: ArrayLike,
    conversations: Sequence[str],
    threshold: float,
    *,
    of_answers: bool = False,
) -> Metrics:
    """Return the function from weightings of the examples to every metric, as `resampled` takes it.

    Args:
        labels: `bool[n]`, true for the positive class.
        scores: `float[n]`, finite; larger when true is more likely.
        probabilities: `float[n]` in [0, 1], of true.
        conversations: conversation of each example; a weighting gives all of one the same weight.
        threshold: an example with a score above it is called true.
        of_answers: whether examples are a model's answers, true where correct; adds what rejecting them gives.

    Raises:
        ValueError: shapes differ, a label is not true or false, a score is not finite, or a probability lies
            outside [0, 1].
    """
    truth = as_labels(labels)
    ranking, calibration = Ranking(truth, scores), Calibration(truth, probabilities)
    within = _WithinGroups(truth, scores, conversations)
    called = as_scores(scores, len(truth)) > threshold
    most = 2 * int(truth.sum()) > len(truth)

    def metrics(weights: FloatArray) -> dict[str, FloatArray]:
        counts = ranking.counts(weights)
        true_positives, positives = weights @ (called & truth), weights @ truth
        positive_calls, negatives = weights @ called, weights @ ~truth
        true_negatives = weights @ (~called & ~truth)
        return {
            "auroc": counts.auroc(),
            "auprc": counts.auprc(),
            "accuracy": ratio(weights @ (called == truth), weights.sum(axis=1)),
            "balanced_accuracy": (ratio(true_positives, positives) + ratio(true_negatives, negatives)) / 2,
            "mcc": ratio(
                true_positives * true_negatives
                - (positive_calls - true_positives) * (positives - true_positives),
                np.sqrt(positives * negatives * positive_calls * (negatives + positives - positive_calls)),
            ),
            "majority_accuracy": ratio(weights @ (truth == most), weights.sum(axis=1)),
            "precision": ratio(true_positives, positive_calls),
            "recall": ratio(true_positives, positives),
            "f1": ratio(2 * true_positives, positive_calls + positives),
            "recall_at_1_fpr": counts.recall_at_fpr(_FPR),
            "within_conversation_auroc": within.auroc(weights),
            "ece": calibration.ece(weights),
            "brier": calibration.brier(weights),
            **(selective_metrics(counts) if of_answers else {}),
        }

    return metrics


def evaluate_classification(
    labels: ArrayLike,
    scores: ArrayLike,
    probabilities: ArrayLike,
    groups: Sequence[str],
    conversations: Sequence[str],
    threshold: float,
    *,
    seed: int,
    resamples: int = 2000,
    of_answers: bool = False,
) -> Summary:
    """Compute every metric with its 95% interval; `shares` and `miscalibration` say which.

    Args:
        labels: `bool[n]`, true for the positive class.
        scores: `float[n]`, finite; larger when true is more likely.
        probabilities: `float[n]` in [0, 1], of true.
        groups: group of each example; whole groups are resampled. A conversation lies in one group.
        conversations: conversation of each example.
        threshold: an example with a score above it is called true.
        seed: of the resampling alone.
        resamples: number of bootstrap resamples.
        of_answers: whether examples are a model's answers, true where correct; adds what rejecting them gives, under
            the names that it has of any other score of answers.

    Raises:
        ValueError: as `classification_metrics` and `resampled`, or a conversation that lies in two groups.
    """
    truth = as_labels(labels)
    if len({*zip(conversations, groups, strict=True)}) > len({*conversations}):
        raise ValueError("a conversation lies in two groups; a bootstrap would take it apart")
    metrics = classification_metrics(
        truth, scores, probabilities, conversations, threshold, of_answers=of_answers
    )
    drawn = resampled(metrics, len(truth), groups, seed=seed, resamples=resamples)
    calls = _Calls(truth, as_scores(scores, len(truth)), threshold, groups, conversations)
    calibrated = miscalibration(truth, probabilities, groups, seed=seed, resamples=resamples)
    estimates = {name: drawn.estimate(name, calls.ends(name, drawn)) for name in drawn.values}
    estimates["ece"] = drawn.estimate("ece", (calibrated.low, calibrated.high))
    plain = calibration_numbers(calibrated, labels, probabilities)
    if of_answers:
        estimates |= risk_estimates(estimates)
        plain |= {"coverage_at_risk_10": coverage_at_risk(truth, scores, RISK)}
    area = estimates["auroc"].value
    notes = {
        name: note
        for name, estimate in estimates.items()
        if (note := _note(name, estimate, calls, area)) is not None
    }
    return Summary(
        estimates,
        n=len(truth),
        n_correct=int(truth.sum()),
        notes=with_ties(notes, {"auroc": scores}),
        plain=plain,
    )


def layer_aurocs(
    labels: ArrayLike, scores: FloatArray, groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> list[Estimate]:
    """Compute the AUROC of every layer with its 95% interval, all on the same resamples.

    Args:
        labels: `bool[n]`, true for the positive class.
        scores: `float[n, l]`, finite, a column a layer.
        groups: group of each example; whole groups are resampled.
        seed: of the resampling alone.
        resamples: number of bootstrap resamples.
    """
    rankings = [Ranking(labels, column) for column in scores.T]

    def metrics(weights: FloatArray) -> dict[str, FloatArray]:
        return {str(row): ranking.counts(weights).auroc() for row, ranking in enumerate(rankings)}

    standing = Standing.of(labels, groups)
    drawn = resampled(
        metrics, len(scores), groups, seed=seed, resamples=resamples if standing.is_clustered else 1
    )
    return [
        drawn.estimate(str(row), area_interval(labels, column, drawn, str(row), standing))
        for row, column in enumerate(scores.T)
    ]


@dataclass(frozen=True)
class _Calls:
    """What a probe says of its test examples, and what stands behind each number of it."""

    truth: BoolArray
    scores: FloatArray
    threshold: float
    groups: Sequence[str]
    conversations: Sequence[str]

    @cached_property
    def called(self) -> BoolArray:
        return np.asarray(self.scores > self.threshold)

    @cached_property
    def standing(self) -> Standing:
        return Standing.of(self.truth, self.groups)

    def ends(self, name: str, drawn: Resampled) -> Ends:
        """Ends of a metric by its name."""
        value, variance, n = drawn.values[name], drawn.variance(name), len(self.truth)
        if np.isnan(value):
            return value, value
        if name == "auroc":
            return area_interval(self.truth, self.scores, drawn, name, self.standing)
        of = {
            "accuracy": (self.called == self.truth, np.ones(n, dtype=bool)),
            "majority_accuracy": (self.truth, np.ones(n, dtype=bool)),
            "precision": (self.truth, self.called),
            "recall": (self.called, self.truth),
        }
        if name in of:
            right, among = of[name]
            return share_ends(value, variance, self._standing_among(right, among))
        if name == "recall_at_1_fpr":
            return recall_ends(self.truth, self.scores, _FPR, self.standing)
        if name == "within_conversation_auroc":
            return ranked_ends(value, variance, self.mixed.n, self.mixed)
        if name == "auprc":
            return auprc_ends(self.truth, self.scores, value, variance, self.standing)
        if name in SELECTIVE:
            return selective_ends(name, drawn, self.standing)
        positives, positive_calls = self.standing.positives, int(self.called.sum())
        sizes = {
            "balanced_accuracy": 2 * min(positives, self.standing.negatives),
            "mcc": min(_harmonic(positives, n), _harmonic(positive_calls, n)),
            "f1": (positives + positive_calls) / 2,  # it is a share of both, each right one counted twice
        }
        size = sizes.get(name, n)
        if name == "mcc":
            low, high = ranked_ends((1 + value) / 2, variance / 4, size, self.standing)
            return 2 * low - 1, 2 * high - 1
        ends = ranked_ends(value, variance, size, self.standing)
        if name == "balanced_accuracy" and not self.standing.is_clustered:
            of_shares = self._balanced_ends(value)
            return min(ends[0], of_shares[0]), max(ends[1], of_shares[1])
        return ends

    def _balanced_ends(self, value: float) -> Ends:
        """Of a mean of two independent shares, by the interval of each (Zou & Donner 2008).

        A class of which every example is called rightly adds nothing to the variance of the resamples, and here does.
        """
        below, above = [], []
        for right in (self.called[self.truth], ~self.called[~self.truth]):
            share = float(right.mean())
            low, high = few_wilson(share, right.size)
            below.append(share - low)
            above.append(high - share)
        return value - math.hypot(*below) / 2, value + math.hypot(*above) / 2

    def _standing_among(self, right: BoolArray, among: BoolArray) -> Standing:
        rows = np.flatnonzero(among)
        return Standing.of(right[rows], [self.groups[int(row)] for row in rows])

    @cached_property
    def mixed(self) -> Standing:
        """What stands behind a number within conversations: those that hold both labels, each with its pairs."""
        talks = np.asarray(self.conversations, dtype=object)
        rows = np.flatnonzero(np.isin(talks, list({*talks[self.truth]} & {*talks[~self.truth]})))
        standing = Standing.of(self.truth[rows], [self.groups[int(row)] for row in rows])
        if standing.clusters < standing.n:  # examples of one conversation are ranked against each other alone
            standing = replace(standing, design=standing.n / standing.clusters)
        return standing


def _harmonic(some: int, n: int) -> float:
    """Examples of which a mean of a share of each of two kinds is worth as much: n where they are as many."""
    return 4 * some * (n - some) / max(n, 1)


class _WithinGroups:
    """AUROC over the pairs of a true and a false example of one group, all pairs of all groups alike.

    Args:
        labels: `bool[n]`.
        scores: `float[n]`, finite.
        groups: group of each example.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, groups: Sequence[str]) -> None:
        truth = as_labels(labels)
        values = as_scores(scores, len(truth))
        _, group_of = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
        members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(np.bincount(group_of))[:-1])
        pairs = [np.subtract.outer(values[rows[truth[rows]]], values[rows[~truth[rows]]]) for rows in members]
        self._first = np.array([rows[0] for rows in members])
        self._wins = np.array([np.sum(gaps > 0) + np.sum(gaps == 0) / 2 for gaps in pairs])
        self._pairs = np.array([float(gaps.size) for gaps in pairs])

    def auroc(self, weights: FloatArray) -> FloatArray:
        """Area of each weighting `float64[r, n]`: `float64[r]`; `nan` where no group holds both labels."""
        of_group = weights[:, self._first]
        return ratio(of_group @ self._wins, of_group @ self._pairs)


def _note(name: str, estimate: Estimate, calls: _Calls, area: float) -> str | None:
    standing = calls.standing
    if np.isnan(estimate.value):
        return _why_undefined(name, standing.positives, standing.n)
    if np.isnan(estimate.low):
        return NO_INTERVAL
    if name == "recall_at_1_fpr" and (said := _why_recall_is_wide(standing)):
        return said
    return few_note(name, calls.mixed if name == "within_conversation_auroc" else standing, area)


def _why_recall_is_wide(standing: Standing) -> str:
    """Why the recall at 1% FPR has the interval that it has; empty where enough negatives show the threshold."""
    counted = standing.negatives * standing.clusters / standing.n  # a cluster as one example
    worth = f", worth {counted:.0f} that stand alone," if standing.is_clustered else ""
    if counted < _FEWEST_FOR_FPR:
        return (
            f"{standing.negatives} false examples{worth} do not show which threshold lets 1% of them pass: nothing "
            "bounds it from below"
        )
    return f"fewer than {_MANY_FOR_FPR} false examples: {SAFE_SIDE}" if counted < _MANY_FOR_FPR else ""


def _why_undefined(name: str, n_true: int, n: int) -> str:
    if n_true in (0, n):
        return f"all {n} test examples are {'true' if n_true else 'false'}: {name} needs both"
    if name == "within_conversation_auroc":
        return "no conversation of the test split holds both a true and a false statement"
    if name == "mcc":
        return "all test examples are called alike: mcc is undefined"
    return f"no test example is called true: {name} is undefined"
