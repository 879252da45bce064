"""An interval of the recall at a false positive rate that counts the threshold's own uncertainty.

Knows labels and scores. The threshold is a quantile of the negatives: with 100 of them, a rate of 1% is one example's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray, as_labels, as_scores
from probegrid.evaluation.shares import LEVEL, Ends, Standing, wilson


def recall_ends(labels: ArrayLike, scores: ArrayLike, max_fpr: float, standing: Standing) -> Ends:
    """Interval of the recall at a false positive rate: the threshold's and the recall's own added (Zou & Donner 2008).

    The threshold's is between two order statistics of the negatives, which hold its quantile whatever their
    distribution; the recall's is Wilson's. It is wide: of 300 negatives none need lie beyond their 99th percentile, so
    that below about 370 nothing bounds the recall from below. A cluster counts as one example.

    Args:
        labels: `bool[n]`.
        scores: `float[n]`, finite.
        max_fpr: the rate, in (0, 1).
        standing: of the labels.
    """
    from scipy.special import bdtr

    truth = as_labels(labels)
    values = as_scores(scores, len(truth))
    positives, negatives = np.sort(values[truth]), np.sort(values[~truth])[::-1]
    if not positives.size or not negatives.size or standing.clusters < 2:
        return float("nan"), float("nan")
    worth = standing.clusters / standing.n
    counted = max(1, round(negatives.size * worth))
    ranks = np.arange(counted + 1)
    tail = (1 - LEVEL) / 2
    reaching = bdtr(np.maximum(ranks - 1, 0), counted, max_fpr) * (ranks > 0)  # fewer than so many lie beyond
    lower = int(np.flatnonzero(reaching <= tail).max())
    upper = int(np.argmax(reaching >= 1 - tail)) if (reaching >= 1 - tail).any() else counted + 1
    value = _recall_above(positives, negatives, int(negatives.size * max_fpr * (1 + 1e-9)) + 1)
    least = _recall_above(positives, negatives, round(lower / worth)) if lower else 0.0
    most = _recall_above(positives, negatives, round(upper / worth))
    own_low, own_high = wilson(value, max(1.0, positives.size * worth))
    low = value - np.hypot(value - own_low, value - min(least, value))
    high = value + np.hypot(own_high - value, max(most, value) - value)
    return float(max(0.0, low)), float(min(1.0, high))


def _recall_above(positives: FloatArray, negatives: FloatArray, rank: int) -> float:
    """Share of the positives above the negative of this rank from the top; all of them beyond the last."""
    if rank > len(negatives):
        return 1.0
    return float(1 - np.searchsorted(positives, negatives[rank - 1], side="right") / len(positives))
