"""Intervals of numbers between 0 and 1 that hold at the edges: Wilson's, with as many examples as the number is worth.

Knows a value, its variance, and how many examples, clusters and errors stand behind it.

A share's variance vanishes at 0 and 1, and so does a bootstrap's interval: 0 wrong answers of 400 do not show that none
ever is. Wilson's interval (1927) takes the variance at the end of the interval and not at the value. A number that is
no plain share (a clustered accuracy, an AUROC, an AURC) is worth ``value (1 - value) / variance`` examples (Dean &
Pagano 2015, "Evaluating confidence interval methods for binomial proportions in clustered surveys"), and gets Wilson's
interval with these. Its variance is itself an estimate, too low where few errors stand behind it: it is averaged with
that of a reference, which counts as a few more errors, and never goes below its own. For the AUROC the reference is
Hanley & McNeil's (1982) in Newcombe's (2006) symmetric form, which needs no more than the value.

Simulated coverage is in LOG.md (``benchmarks/coverage.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import BoolArray, FloatArray, IntArray, as_labels

LEVEL = 0.95
"""Confidence level of every interval."""
FEW_ERRORS, FEW_CLUSTERS = 5, 10
"""Below these many examples of a class, or clusters, an interval need not cover."""

Ends = tuple[float, float]

_NO_ENDS = (float("nan"), float("nan"))
_REFERENCE_OF_AREA = 10  # errors that the reference counts as, chosen by simulation
_REFERENCE = 2
_LEAST_DEGREES_OF_AREA = 20  # of clusters that are enough; chosen by simulation
_OUT_OF_PLACE = 0.75  # examples of the rarer class; with fewer, no ranking's interval lies above the area
_LEFT_OUT_BEYOND = 0.04  # below it then; all of 5% would be too much where a class is spread wider
_LEAST_DEGREES = 4  # of freedom; with fewer errors a note says that the interval need not cover
_EDGE = 1e-12
_FEW_COUNTED = 3 + 1e-9  # errors for which a Poisson count's end holds better than Wilson's


@dataclass(frozen=True)
class Standing:
    """What stands behind numbers of a set of examples with two classes.

    Attributes:
        n: number of examples.
        positives: of them, those of the positive class.
        clusters: number of clusters; `n` where every example stands alone.
        fewest: clusters that hold an example of the class that is in fewer of them.
        design: how many times larger the variance of the share of positives is than of as many independent examples,
            between 1 and the mean size of a cluster.
    """

    n: int
    positives: int
    clusters: int
    fewest: int
    design: float

    @classmethod
    def of(cls, labels: ArrayLike, groups: Sequence[str] | None = None) -> Standing:
        """Count examples and clusters.

        Args:
            labels: `bool[n]`.
            groups: cluster of each example; None: every example stands alone.
        """
        truth = as_labels(labels)
        n, positives = len(truth), int(truth.sum())
        if groups is None or len(set(groups)) == n:
            return cls(n, positives, n, min(positives, n - positives), 1.0)
        _, cluster_of = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
        holding = [len(np.unique(cluster_of[truth == label])) for label in (True, False)]
        clusters = int(cluster_of.max()) + 1
        return cls(n, positives, clusters, min(holding), _design(truth, cluster_of, clusters))

    @property
    def negatives(self) -> int:
        """Examples of the negative class."""
        return self.n - self.positives

    @property
    def is_clustered(self) -> bool:
        """Whether examples share clusters."""
        return self.clusters < self.n

    @property
    def few_clusters(self) -> str:
        """How many groups there are, in words, where they are too few; else empty."""
        return f"{self.clusters} groups" if self.is_clustered and self.clusters < FEW_CLUSTERS else ""

    @property
    def few(self) -> str:
        """Why intervals need not cover, in words; empty where enough stands behind them."""
        counts = [self.few_clusters] if self.few_clusters else []
        if (fewer := min(self.positives, self.negatives)) < FEW_ERRORS:
            counts.append(f"{fewer} of the {self.n} examples in one class")
        return " and ".join(counts)


def _design(truth: BoolArray, cluster_of: IntArray, clusters: int) -> float:
    n, share = len(truth), truth.mean()
    alone = share * (1 - share) * n
    if clusters < 2 or alone == 0:
        return n / clusters
    sums = np.bincount(cluster_of, truth - share, clusters)
    return float(np.clip(clusters / (clusters - 1) * (sums**2).sum() / alone, 1, n / clusters))


def student(degrees: float, left_out: float = (1 - LEVEL) / 2) -> float:
    """What Student's distribution exceeds with this chance; the normal one for infinite degrees of freedom."""
    from scipy.special import ndtri, stdtrit  # scipy.stats takes a second to import

    return float(ndtri(1 - left_out) if np.isinf(degrees) else stdtrit(degrees, 1 - left_out))


def wilson(share: float, n: float, quantile: float | None = None) -> Ends:
    """Wilson's score interval of a share of n examples.

    Args:
        share: in [0, 1].
        n: number of examples, or what the share is worth in examples; positive.
        quantile: of the distribution of the standardized share; the normal one by default.
    """
    q = student(np.inf) if quantile is None else quantile
    middle = share + q * q / (2 * n)
    half = q * np.sqrt(max(share * (1 - share), 0.0) / n + q * q / (4 * n * n))
    shrunk = 1 + q * q / n
    low, high = (middle - half) / shrunk, (middle + half) / shrunk
    return float(max(0.0, min(low, share))), float(min(1.0, max(high, share)))


def few_wilson(share: float, n: float) -> Ends:
    """Wilson's interval whose end next to 0 or 1 is a Poisson count's where up to three stand between.

    Brown, Cai & DasGupta (2001), "Interval estimation for a binomial proportion": Wilson's alone covers 84% where a
    fifth of an error is expected, for it leaves that out once one is found.

    Args:
        share: in [0, 1].
        n: number of examples, or what the share is worth in examples; positive.
    """
    from scipy.special import gammaincinv

    low, high = wilson(share, n)
    few, many = share * n, (1 - share) * n
    if _EDGE < few <= _FEW_COUNTED:
        low = min(low, float(gammaincinv(few, 1 - LEVEL)) / n)
    if _EDGE < many <= _FEW_COUNTED:
        high = max(high, 1 - float(gammaincinv(many, 1 - LEVEL)) / n)
    return low, high


def share_ends(value: float, variance: float, standing: Standing) -> Ends:
    """Interval of a share of examples: Wilson's; of clustered examples, with what the share is worth.

    Args:
        value: the share; `nan` has no interval.
        variance: of the share by resampling clusters, divided by clusters - 1; read where examples are clustered alone.
        standing: with the examples counted as positives.
    """
    if np.isnan(value) or standing.clusters < 2:
        return _NO_ENDS
    if not standing.is_clustered:
        return few_wilson(value, standing.n)
    alone = standing.n / standing.design
    return wilson(value, _worth(value, variance, alone), student(standing.clusters - 1))


def ranked_ends(value: float, variance: float, size: float, standing: Standing) -> Ends:
    """Interval of a number in [0, 1] that depends on how examples are ranked or called.

    Args:
        value: the number; `nan` has no interval.
        variance: of it by resampling, divided by clusters - 1.
        size: independent examples that a plain share would be of in its place.
        standing: of the classes it ranks.
    """
    if np.isnan(value) or standing.clusters < 2 or size <= 0:
        return _NO_ENDS
    alone = size / standing.design
    reference = value * (1 - value) / alone
    return _blended(value, variance, reference, alone, standing)


def few_share_ends(value: float, variance: float, size: float, standing: Standing) -> Ends:
    """Interval of a share of those independent examples that are ranked highest.

    As `ranked_ends`, and on neither side narrower than that of as many errors among them (`few_wilson`).

    Args:
        value: the share; `nan` has no interval.
        variance: of it by resampling, divided by n - 1.
        size: examples that are kept.
        standing: of the classes it ranks.
    """
    low, high = ranked_ends(value, variance, size, standing)
    if np.isnan(low):
        return _NO_ENDS
    counted = few_wilson(value, size)
    return min(low, counted[0]), max(high, counted[1])


def area_ends(value: float, variance: float, standing: Standing) -> Ends:
    """Interval of an AUROC.

    An area so near 1 that a perfect ranking is no surprise lies above the lower end of every ranking's interval: all
    that is missed is missed on one side, and two ends at 2.5% hold 97.5%. So the part of the interval where less than
    0.75 examples of the rarer class are out of place ends at 4%. (Blaker 2000, "Confidence curves and improved exact
    confidence intervals for discrete distributions", on why two tails need not be alike.)

    Of G clusters Student's quantile has up to 2 (G - 1) degrees of freedom, for an area's variance is a sum of two
    independent ones, of the positives' and of the negatives' placements (Satterthwaite 1946).

    Args:
        value: the area; `nan` has no interval.
        variance: DeLong's where examples stand alone, else by resampling clusters.
        standing: of the classes.
    """
    if np.isnan(value) or standing.clusters < 2:
        return _NO_ENDS
    worth, degrees = _area_worth(value, variance, standing)
    low, high = wilson(value, worth, student(degrees))
    nearer = wilson(value, worth, student(degrees, _LEFT_OUT_BEYOND))
    few_misplaced = _OUT_OF_PLACE / max(standing.fewest, 1)
    if high > 1 - few_misplaced:
        high = min(high, max(nearer[1], 1 - few_misplaced))
    if low < few_misplaced:
        low = max(low, min(nearer[0], few_misplaced))
    return low, high


def is_nearly_perfect(area: float, standing: Standing) -> bool:
    """Whether less than 0.75 examples of the rarer class are out of place; not where the area is `nan`."""
    return (1 - area) * standing.fewest < _OUT_OF_PLACE


def _area_worth(value: float, variance: float, standing: Standing) -> tuple[float, float]:
    """Independent examples of which a share varies as this area, and degrees of freedom of that variance."""
    positives, negatives = max(standing.positives, 1), max(standing.negatives, 1)
    by_clusters = standing.clusters - 1 if standing.is_clustered else np.inf
    if not _EDGE < value < 1 - _EDGE:
        middling = (positives + negatives) / 2 - 1
        return positives * negatives / (1 + middling / 2) / standing.design, by_clusters
    reference = standing.design * hanley_mcneil(value, positives, negatives)
    weight = _REFERENCE if standing.is_clustered else _REFERENCE_OF_AREA
    blended = _average(variance, reference, standing.fewest, weight)
    if standing.is_clustered:
        of_classes = max(standing.fewest - 1 + 2 * _REFERENCE, _LEAST_DEGREES_OF_AREA)
        by_clusters = min(2 * by_clusters, of_classes)
    return value * (1 - value) / blended, by_clusters


def hanley_mcneil(area: float, positives: int, negatives: int) -> float:
    """Variance of an AUROC by its value alone: Hanley & McNeil (1982), symmetric as in Newcombe (2006), method 5."""
    middling = (positives + negatives) / 2 - 1
    terms = 1 + middling * ((1 - area) / (2 - area) + area / (1 + area))
    return area * (1 - area) * terms / (positives * negatives)


def _blended(value: float, variance: float, reference: float, at_edge: float, standing: Standing) -> Ends:
    by_clusters = standing.clusters - 1 if standing.is_clustered else np.inf
    if not _EDGE < value < 1 - _EDGE:
        return wilson(value, at_edge, student(by_clusters))
    degrees = max(standing.fewest - 1 + _REFERENCE * (2 if standing.is_clustered else 1), _LEAST_DEGREES)
    blended = _average(variance, reference, standing.fewest, _REFERENCE)
    return wilson(value, _worth(value, blended, at_edge), student(min(by_clusters, degrees)))


def _average(variance: float, reference: float, errors: int, weight: int) -> float:
    """The variance, or its average with the reference where that is larger."""
    if np.isnan(variance):
        return reference
    return max(variance, (errors * variance + weight * reference) / (errors + weight))


def _worth(value: float, variance: float, at_edge: float) -> float:
    """Independent examples of which a share has this variance; where there is none, as many as are given."""
    if np.isnan(variance) or variance < _EDGE**2 or not _EDGE < value < 1 - _EDGE:
        return at_edge
    return value * (1 - value) / variance


def mean_of_shares_ends(value: float, variance: float, standing: Standing) -> Ends:
    """Interval of a mean of numbers that each lie in [0, 1], as token F1 does.

    Args:
        value: the mean.
        variance: of the mean, clusters whole.
        standing: with the examples above the mean as positives.
    """
    if np.isnan(value) or standing.clusters < 2:
        return _NO_ENDS
    alone = standing.n / standing.design
    blended = _average(variance, value * (1 - value) / alone, standing.fewest, _REFERENCE)
    return wilson(value, _worth(value, blended, alone), student(standing.clusters - 1))


def mean_ends(values: ArrayLike, groups: Sequence[str] | None = None) -> Ends:
    """Student's interval of a mean, clusters whole.

    Args:
        values: `float[n]`, finite.
        groups: cluster of each; None: each stands alone.
    """
    found = np.asarray(values, dtype=np.float64)
    clusters = len(found) if groups is None else len(set(groups))
    if clusters < 2:
        return _NO_ENDS
    half = student(clusters - 1) * np.sqrt(mean_variance(found, groups))
    return float(found.mean() - half), float(found.mean() + half)


def mean_variance(values: FloatArray, groups: Sequence[str] | None = None) -> float:
    """Variance of a mean of two clusters or more: the sum of the squared deviations of clusters, G / (G - 1)."""
    deviations = values - values.mean()
    if groups is not None:
        _, cluster_of = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
        deviations = np.bincount(cluster_of, deviations)
    clusters = len(deviations)
    return float(clusters / (clusters - 1) * (deviations**2).sum() / len(values) ** 2)
