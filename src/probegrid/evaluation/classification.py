"""All numbers of a trained probe on its test split, each with its interval, and the AUROC of every layer.

Labels, scores and groups are those of the test split; what was chosen (layer, penalty, threshold) was chosen without
it, see `selection`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.calibration import Calibration
from probegrid.evaluation.checks import FloatArray, as_labels, as_scores, ratio
from probegrid.evaluation.intervals import Estimate, Metrics, bootstrap
from probegrid.evaluation.ranking import Ranking
from probegrid.evaluation.summary import Summary

_FPR = 0.01


def classification_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    probabilities: ArrayLike,
    conversations: Sequence[str],
    threshold: float,
) -> Metrics:
    """Return the function from weightings of the examples to every metric, as `bootstrap` takes it.

    Args:
        labels: `bool[n]`, true for the positive class.
        scores: `float[n]`, finite; larger when true is more likely.
        probabilities: `float[n]` in [0, 1], of true.
        conversations: conversation of each example; a weighting gives all of one the same weight.
        threshold: an example with a score above it is called true.

    Raises:
        ValueError: shapes differ, a label is not true or false, a score is not finite, or a probability lies
            outside [0, 1].
    """
    truth = as_labels(labels)
    ranking, calibration = Ranking(truth, scores), Calibration(truth, probabilities)
    within = _WithinGroups(truth, scores, conversations)
    called = as_scores(scores, len(truth)) > threshold

    def metrics(weights: FloatArray) -> dict[str, FloatArray]:
        counts = ranking.counts(weights)
        true_positives, positives = weights @ (called & truth), weights @ truth
        positive_calls = weights @ called
        return {
            "auroc": counts.auroc(),
            "auprc": counts.auprc(),
            "accuracy": ratio(weights @ (called == truth), weights.sum(axis=1)),
            "precision": ratio(true_positives, positive_calls),
            "recall": ratio(true_positives, positives),
            "f1": ratio(2 * true_positives, positive_calls + positives),
            "recall_at_1_fpr": counts.recall_at_fpr(_FPR),
            "within_conversation_auroc": within.auroc(weights),
            "ece": calibration.ece(weights),
            "brier": calibration.brier(weights),
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
) -> Summary:
    """Compute every metric with its 95% bootstrap interval.

    Args:
        labels: `bool[n]`, true for the positive class.
        scores: `float[n]`, finite; larger when true is more likely.
        probabilities: `float[n]` in [0, 1], of true.
        groups: group of each example; whole groups are resampled. A conversation lies in one group.
        conversations: conversation of each example.
        threshold: an example with a score above it is called true.
        seed: of the resampling alone.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: as `classification_metrics` and `bootstrap`, or a conversation that lies in two groups.
    """
    truth = as_labels(labels)
    if len({*zip(conversations, groups, strict=True)}) > len({*conversations}):
        raise ValueError("a conversation lies in two groups; a bootstrap would take it apart")
    metrics = classification_metrics(truth, scores, probabilities, conversations, threshold)
    estimates = bootstrap(metrics, len(truth), groups, seed=seed, resamples=resamples, reflected=("ece",))
    notes = {
        name: note
        for name, estimate in estimates.items()
        if (note := _note(name, estimate, int(truth.sum()), len(truth), resamples)) is not None
    }
    return Summary(estimates, n=len(truth), n_correct=int(truth.sum()), notes=notes)


def layer_aurocs(
    labels: ArrayLike, scores: FloatArray, groups: Sequence[str], *, seed: int, resamples: int = 2000
) -> list[Estimate]:
    """Compute the AUROC of every layer with its 95% bootstrap interval, all on the same resamples.

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

    return list(bootstrap(metrics, len(scores), groups, seed=seed, resamples=resamples).values())


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


def _note(name: str, estimate: Estimate, n_true: int, n: int, resamples: int) -> str | None:
    if np.isnan(estimate.value):
        return _why_undefined(name, n_true, n)
    if np.isnan(estimate.low):
        return f"no interval for {name}: a bootstrap needs at least two groups"
    if estimate.low == estimate.high:
        return f"every resample gives the same {name}: its interval has no width and hides the uncertainty"
    if estimate.n_resamples_valid < resamples:
        return f"{name} is undefined on {resamples - estimate.n_resamples_valid} of {resamples} resamples: left out"
    return None


def _why_undefined(name: str, n_true: int, n: int) -> str:
    if n_true in (0, n):
        return f"all {n} test examples are {'true' if n_true else 'false'}: {name} needs both"
    if name == "within_conversation_auroc":
        return "no conversation of the test split holds both a true and a false statement"
    return f"no test example is called true: {name} is undefined"
