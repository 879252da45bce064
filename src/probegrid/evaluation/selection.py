"""Choosing by the validation split: a penalty, a layer, a threshold. Nothing here may see the test split."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray, as_labels, as_scores
from probegrid.evaluation.ranking import Ranking, auroc


def best_column(labels: ArrayLike, log_odds: FloatArray) -> int:
    """Choose among k scorings of the same examples: the highest AUROC, of equals the lowest log-loss, then the first.

    Args:
        labels: `bool[n]`, both values among them.
        log_odds: `float[n, k]`, natural logarithm of the odds of true.
    """
    truth = as_labels(labels)
    areas = np.array([auroc(truth, column) for column in log_odds.T])
    losses = np.logaddexp(0, np.where(truth[:, None], -log_odds, log_odds)).mean(axis=0)
    return int(np.lexsort((losses, -areas))[0])


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Choose the threshold above which an example is called true, by balanced accuracy (Youden 1950).

    It lies half-way between two neighbouring scores; of equally good ones the nearest to 0 is taken.

    Args:
        labels: `bool[n]`, both values among them.
        scores: `float[n]`, finite; larger when true is more likely.

    Raises:
        ValueError: one class only.
    """
    truth = as_labels(labels)
    values = as_scores(scores, len(truth))
    if truth.all() or not truth.any():
        raise ValueError("a threshold needs examples of both classes")
    counts = Ranking(truth, values).counts()
    recall = counts.positives[0] / counts.positives[0, -1]
    false_positive_rate = counts.negatives[0] / counts.negatives[0, -1]
    falling = np.unique(values)[::-1]
    thresholds = np.concatenate([[falling[0] + 1], (falling[:-1] + falling[1:]) / 2, [falling[-1] - 1]])
    gain = recall - false_positive_rate
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    return float(thresholds[best[np.argmin(np.abs(thresholds[best]))]])
