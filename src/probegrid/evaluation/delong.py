"""The AUROC's standard error from placement values, and of the difference of two of the same examples.

Knows labels and scores. A placement is the share of the other class that an example is ranked right against (DeLong,
DeLong & Clarke-Pearson 1988), computed from midranks (Sun & Xu 2014).

Shapes: n examples, m of them positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import BoolArray, FloatArray, as_labels, as_scores


@dataclass(frozen=True)
class Placements:
    """Placement values of scores.

    Attributes:
        labels: `bool[n]`, both values among them.
        values: `float64[n]`: of a positive, the share of negatives below it; of a negative, of positives above it.
        area: the AUROC, the mean of either class's placements.
    """

    labels: BoolArray
    values: FloatArray
    area: float

    @classmethod
    def of(cls, labels: ArrayLike, scores: ArrayLike) -> Placements:
        """Placements in O(n log n); a tie counts one half.

        Raises:
            ValueError: shapes differ, a score is not finite, or one class only.
        """
        truth = as_labels(labels)
        found = as_scores(scores, len(truth))
        if truth.all() or not truth.any():
            raise ValueError("placements need examples of both classes")
        values = np.empty(len(found))
        for label in (True, False):
            own, others = found[truth == label], np.sort(found[truth != label])
            below = (
                np.searchsorted(others, own, side="left") + np.searchsorted(others, own, side="right")
            ) / 2
            values[truth == label] = below / len(others) if label else 1 - below / len(others)
        return cls(truth, values, float(values[truth].mean()))

    def variance(self) -> float:
        """DeLong's variance of the area, with n - 1 of each class; `nan` with a class of one."""
        return covariance(self, self)

    def contributions(self) -> FloatArray:
        """What each example adds to the area, `float64[n]`: they sum to it, and their deviations give its variance.

        The linear part of the area (Hoeffding's projection), for sums over clusters (Obuchowski 1997); deviations
        within a class are scaled as in DeLong's variance, by the root of m / (m - 1).
        """
        sizes = np.where(self.labels, self.labels.sum(), (~self.labels).sum())
        scale = np.sqrt(sizes / np.maximum(sizes - 1, 1)) / sizes
        found: FloatArray = (self.values - self.area) * scale + self.area / len(self.labels)
        return found


def covariance(first: Placements, second: Placements) -> float:
    """Covariance of two AUROCs of the same examples with the same labels, by DeLong et al. (1988).

    Raises:
        ValueError: the labels differ.
    """
    if not np.array_equal(first.labels, second.labels):
        raise ValueError("two areas are paired where their labels are the same")
    total = 0.0
    for label in (True, False):
        of = first.labels == label
        if of.sum() < 2:
            return float("nan")
        total += float(np.cov(first.values[of], second.values[of])[0, 1]) / int(of.sum())
    return total


def logit_interval(area: float, variance: float, quantile: float = 1.959963984540054) -> tuple[float, float]:
    """DeLong's interval on the scale of log-odds, which stays inside (0, 1); `nan` at an area of 0 or 1."""
    if not 0 < area < 1:
        return float("nan"), float("nan")
    middle, half = np.log(area / (1 - area)), quantile * np.sqrt(variance) / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (middle - half, middle + half))
    return low, high


def paired_test(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    """DeLong's z and its two-sided normal p-value of two AUROCs of the same examples; for parity.

    What a report prints is `paired.compare`'s, which holds with few errors and clusters too.
    """
    from scipy.special import ndtr

    one, other = Placements.of(labels, first), Placements.of(labels, second)
    variance = one.variance() + other.variance() - 2 * covariance(one, other)
    z = (one.area - other.area) / np.sqrt(variance)
    return float(z), float(2 * ndtr(-abs(z)))
