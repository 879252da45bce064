"""The bootstrap of whole groups: a metric's variance, and its percentile interval.

Examples of one group (a conversation, an article) are not independent: whole groups are drawn with
replacement, as many as there are. A resample is a row of multiplicities, so a metric is a function of weights
and is computed for a block of resamples at once.

Interval: the percentile bootstrap with its levels widened for the number of groups, "expanded percentile"
(Hesterberg 2015, "What teachers should know about the bootstrap"): with G groups the plain one is too narrow
by sqrt((G - 1) / G) and by z in place of t. It fails at the edges of what a metric can be, where `shares` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probegrid.evaluation.checks import FloatArray, IntArray
from probegrid.evaluation.shares import LEVEL

Metrics = Callable[[FloatArray], Mapping[str, FloatArray]]
"""From weightings `float64[r, n]` of n examples to the value of each metric by name, `float64[r]`."""

_FEWEST_RESAMPLES = 20  # on which a variance can be taken
_BLOCK_ELEMENTS = 2**18  # weights held at once: 2 MiB, which stays in a core's cache


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95% interval.

    Attributes:
        value: on the examples themselves; `nan` where the metric is undefined.
        low: lower end; `nan` where there is no interval (value undefined, or fewer than two groups).
        high: upper end; likewise.
        n_resamples_valid: resamples on which the metric is defined; the others are left out.
    """

    value: float
    low: float
    high: float
    n_resamples_valid: int


@dataclass(frozen=True)
class Resampled:
    """Metrics on the examples themselves and on resamples of their clusters.

    Attributes:
        values: of each metric on the examples.
        drawn: of each metric on every resample, `float64[resamples]`; none below two clusters.
        clusters: number of clusters.
    """

    values: Mapping[str, float]
    drawn: Mapping[str, FloatArray]
    clusters: int

    def variance(self, name: str) -> float:
        """Variance of a metric: that over the resamples, times G / (G - 1) for G clusters; `nan` for none."""
        valid = self._valid(name)
        if valid.size < _FEWEST_RESAMPLES:
            return float("nan")
        return float(valid.var()) * self.clusters / (self.clusters - 1)

    def estimate(self, name: str, ends: tuple[float, float]) -> Estimate:
        """A metric with these ends."""
        return Estimate(self.values[name], *ends, n_resamples_valid=int(self._valid(name).size))

    def percentile(self, name: str) -> Estimate:
        """A metric with the expanded percentile interval."""
        return Estimate(self.values[name], *_interval(self.drawn[name], self.values[name], self.clusters))

    def _valid(self, name: str) -> FloatArray:
        drawn = self.drawn[name]
        return drawn[~np.isnan(drawn)]


def resampled(
    metrics: Metrics,
    n: int,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    resamples: int = 2000,
) -> Resampled:
    """Compute metrics on n examples and on resamples of them.

    Args:
        metrics: the metrics as functions of the weights of the n examples.
        n: number of examples.
        groups: group of each example; whole groups are drawn. `None`: every example stands alone.
        seed: of the resampling alone: one seed gives one set of resamples.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: another number of groups than of examples, or no resamples.
    """
    cluster_of, n_clusters = _clusters(n, groups)
    values = {name: float(value[0]) for name, value in metrics(np.ones((1, n))).items()}
    drawn = _resampled(metrics, cluster_of, n_clusters, seed=seed, resamples=resamples)
    return Resampled(values, drawn, n_clusters)


def bootstrap(
    metrics: Metrics,
    n: int,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    resamples: int = 2000,
) -> dict[str, Estimate]:
    """Estimate each metric with its expanded percentile interval; the arguments are those of `resampled`.

    For numbers whose distribution nothing is known of. What a cell reports has intervals of its own (`shares`).
    """
    found = resampled(metrics, n, groups, seed=seed, resamples=resamples)
    return {name: found.percentile(name) for name in found.values}


@dataclass(frozen=True)
class BiasCorrected:
    """Efron's (1987) BCa interval, "Better bootstrap confidence intervals", and what it corrects by.

    Attributes:
        low, high: ends.
        levels: of the resamples at which the ends are taken; 2.5% and 97.5% without a correction.
        bias: z0, the normal quantile of the share of resamples below the value, ties by half.
        acceleration: a, a sixth of the skewness of the values with one example (or cluster) left out.
    """

    low: float
    high: float
    levels: tuple[float, float]
    bias: float
    acceleration: float


def bias_corrected(drawn: FloatArray, value: float, left_out: FloatArray) -> BiasCorrected:
    """The BCa interval, which papers report; a cell's own numbers have those of `shares`, which hold at the edges.

    Args:
        drawn: `float64[r]`, the metric on resamples; `nan` ones are left out.
        value: on the examples.
        left_out: `float64[g]`, the metric with each example (or cluster) left out.

    Returns:
        The interval; `nan` where it is not defined: all resamples on one side of the value, or no resample.
    """
    from scipy.special import ndtr, ndtri

    valid = drawn[~np.isnan(drawn)]
    below = np.mean(valid < value) + np.mean(valid == value) / 2 if valid.size else np.nan
    deviations = left_out.mean() - left_out
    scale = np.sum(deviations**2) ** 1.5
    acceleration = float(np.sum(deviations**3) / (6 * scale)) if scale > 0 else 0.0
    if not 0 < below < 1 or np.isnan(acceleration):
        return BiasCorrected(np.nan, np.nan, (np.nan, np.nan), np.nan, acceleration)
    bias = float(ndtri(below))
    moved = bias + ndtri(np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    low, high = ndtr(bias + moved / (1 - acceleration * moved))
    ends = np.quantile(valid, [low, high])
    return BiasCorrected(float(ends[0]), float(ends[1]), (float(low), float(high)), bias, acceleration)


def _clusters(n: int, groups: Sequence[str] | None) -> tuple[IntArray, int]:
    """Index of each example's group, `intp[n]`, and the number of groups."""
    if groups is None:
        return np.arange(n), n
    if len(groups) != n:
        raise ValueError(f"one group an example is needed: {n} examples, {len(groups)} groups")
    names, cluster_of = np.unique(np.asarray(groups), return_inverse=True)
    return cluster_of, len(names)


def _resampled(
    metrics: Metrics, cluster_of: IntArray, n_clusters: int, *, seed: int, resamples: int
) -> dict[str, FloatArray]:
    """Values of each metric on every resample, `float64[resamples]`; none (`float64[0]`) below two groups."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if n_clusters < 2:
        return {name: np.empty(0) for name in metrics(np.ones((1, len(cluster_of))))}
    blocks = [metrics(weights) for weights in _multiplicities(cluster_of, n_clusters, seed, resamples)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _multiplicities(cluster_of: IntArray, n_clusters: int, seed: int, resamples: int) -> Iterator[FloatArray]:
    """Yield how often each example occurs in each resample, in blocks `float64[rows, n]`."""
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // len(cluster_of))
    stands_alone = np.array_equal(cluster_of, np.arange(n_clusters))  # each example is its own group
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        chosen = generator.integers(n_clusters, size=(rows, n_clusters))
        flat = (chosen + n_clusters * np.arange(rows)[:, None]).ravel()
        occurrences = np.bincount(flat, minlength=rows * n_clusters).reshape(rows, n_clusters)
        yield (occurrences if stands_alone else occurrences[:, cluster_of]).astype(np.float64)


def _interval(drawn: FloatArray, value: float, n_clusters: int) -> tuple[float, float, int]:
    """Ends of the expanded percentile interval, and how many resamples are behind it."""
    from scipy.special import ndtr, stdtrit  # Student's t too: scipy.stats takes a second to import

    valid = drawn[~np.isnan(drawn)]
    if np.isnan(value) or valid.size == 0:
        return float("nan"), float("nan"), int(valid.size)
    widened = _widening(n_clusters) * stdtrit(n_clusters - 1, (1 + LEVEL) / 2)
    low, high = np.quantile(valid, [ndtr(-widened), ndtr(widened)])
    return float(low), float(high), int(valid.size)


def _widening(n_clusters: int) -> float:
    """Ratio of the standard error to that of the bootstrap, whose variance divides by G and not by G - 1."""
    return float(np.sqrt(n_clusters / (n_clusters - 1)))
