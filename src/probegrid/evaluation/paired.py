"""Comparisons of two scorings, or two sets of verdicts, of the same examples: difference, interval, p-value.

Knows labels, scores, verdicts and groups.

The test is one of flipped signs. A difference is a sum of what each group of examples adds to it; where the two are
exchangeable, each group could as well have added the opposite. The p-value is the share of flippings that go at least
as far, those that go exactly as far counted half (mid-p), all of them counted where there are few, else drawn. Of
verdicts that stand alone this is McNemar's mid-p test of the discordant pairs (Fagerland, Lydersen & Laake 2013), in
closed form. Of two AUROCs of the same labels it is the permutation test that swaps an example's two ranks (Bandos,
Rockette & Gur 2005): the difference after any swaps is a sum over examples of a sign times a number, `swapped`, so that
no swap needs a ranking of its own. Clusters of examples are ranked within what they are part of, so that their terms
are widened in variance before they are flipped, by half of what G / (G - 1) adds to 1 (chosen by simulation, see LOG).
Where labels differ too, the sum is of the areas' linear parts (`delong`), which are wide enough as they are. With fewer
than ten examples of a class, where a handful of terms decides, the difference is standardized instead, by the mean of
the variances that swapping (too wide there) and DeLong (too narrow) give.

The interval has the standard error of the groups' contributions, or the one that the test implies where that is larger:
so an interval at a level holds 0 exactly where the test does not reject at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray, IntArray, as_labels
from probegrid.evaluation.delong import Placements
from probegrid.evaluation.intervals import Estimate
from probegrid.evaluation.shares import LEVEL

_MOST_ENUMERATED = 14  # groups whose flippings are all counted: 16 thousand
_FEWEST_BEYOND = 10
_FEW_OF_A_CLASS = 10  # chosen by simulation, see LOG
_SMALLEST = 1e-300  # what a float's normal quantile can still be taken of
_BLOCK = 2**20


@dataclass(frozen=True)
class Difference(Estimate):
    """The difference first - second of a metric, its 95% interval, and how surprising it is.

    Attributes:
        p_value: two-sided, of no difference; above 0.05 exactly where the interval holds 0. `nan` as `low`.
        error: standard error behind the interval.
        degrees: degrees of freedom of Student's distribution behind it.
    """

    p_value: float
    error: float
    degrees: float

    def ends_at(self, level: float) -> tuple[float, float]:
        """Ends of the interval at another level, between 0 and 1."""
        return _ends(self.value, self.error, self.degrees, self.p_value, level)


def compare_shares(
    first: ArrayLike,
    second: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    flips: int = 2000,
) -> Difference:
    """Compare how often two are right on the same n examples.

    Args:
        first: `bool[n]`, where one is right.
        second: `bool[n]`, where the other is.
        groups: group of each example; None: each stands alone.
        seed: of the drawn flippings alone.
        flips: how many are drawn where there are too many to count.

    Raises:
        ValueError: lengths differ.
    """
    one, other = as_labels(first), as_labels(second)
    if len(one) != len(other):
        raise ValueError(f"two sets of verdicts of the same examples are needed: {len(one)} and {len(other)}")
    gaps = (one.astype(np.float64) - other) / max(len(one), 1)
    sums = _by_group(gaps, groups)
    if len(sums) == len(one):
        p_value = mcnemar_midp(int((one & ~other).sum()), int((other & ~one).sum()))
    else:
        p_value = sign_flip(sums, seed=seed, flips=flips)
    error = _error(sums)
    if len(sums) == len(one) > 0:  # Bonett & Price 2012: one more discordant pair of each kind
        n = len(one)
        share, opposite = (int((one & ~other).sum()) + 1) / (n + 2), (int((other & ~one).sum()) + 1) / (n + 2)
        error = float(np.sqrt((share + opposite - (share - opposite) ** 2) / (n + 2)))
    return _difference(float(gaps.sum()), error, len(sums), p_value)


def compare_areas(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    flips: int = 2000,
) -> Difference:
    """Compare two AUROCs on the same n examples.

    Args:
        first: labels `bool[n]` and scores `float[n]`.
        second: the other's; its labels may differ (two models are right on different questions).
        groups: group of each example; None: each stands alone.
        seed: of the drawn flippings alone.
        flips: how many are drawn where there are too many to count.

    Returns:
        All `nan` where either has one class only.

    Raises:
        ValueError: lengths differ, or a score is not finite.
    """
    truths = [as_labels(labels) for labels, _ in (first, second)]
    if len(truths[0]) != len(truths[1]):
        raise ValueError(
            f"two scorings of the same examples are needed: {len(truths[0])} and {len(truths[1])}"
        )
    if any(truth.all() or not truth.any() for truth in truths):
        nan = float("nan")
        return Difference(nan, nan, nan, 0, nan, nan, nan)
    one, other = (Placements.of(*scoring) for scoring in (first, second))
    linear = _by_group(one.contributions() - other.contributions(), groups)
    same_labels, stand_alone = np.array_equal(truths[0], truths[1]), len(linear) == len(truths[0])
    terms = _by_group(swapped(truths[0], first[1], second[1]), groups) if same_labels else linear
    if same_labels and stand_alone and min(truths[0].sum(), (~truths[0]).sum()) < _FEW_OF_A_CLASS:
        p_value = _standardized(terms, _error(linear))
    else:
        is_widened = same_labels and not stand_alone
        wider = float(np.sqrt(1 + 0.5 / max(len(terms) - 1, 1))) if is_widened else 1.0
        p_value = sign_flip(terms, seed=seed, flips=flips, wider=wider)
    return _difference(one.area - other.area, _error(linear), len(linear), p_value)


def swapped(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> FloatArray:
    """What each example adds to the difference of two AUROCs of ranks, and takes from it when its ranks are swapped.

    With ψ 1 where a positive outranks a negative and 1/2 where they tie, the difference after swaps s (1 or -1 an
    example) is the mean over pairs of ``s_i (ψ11 + ψ12 - ψ21 - ψ22) / 2 + s_j (ψ11 + ψ21 - ψ12 - ψ22) / 2``, where ψ12
    holds a positive's first rank against a negative's second: a sum of signs times numbers.

    Args:
        labels: `bool[n]`, both values among them.
        first: `float[n]`, one score.
        second: `float[n]`, the other.

    Returns:
        `float64[n]`, whose sum is the difference.
    """
    truth = as_labels(labels)
    ranks = np.stack([_ranks(np.asarray(scores, dtype=np.float64)) for scores in (first, second)])
    found = np.empty(len(truth))
    for label in (True, False):
        own, others = ranks[:, truth == label], np.sort(ranks[:, truth != label], axis=1)
        below = [
            sum(np.searchsorted(of, row, "left") + np.searchsorted(of, row, "right") for of in others) / 2
            for row in own
        ]
        found[truth == label] = (
            (1 if label else -1) * (below[0] - below[1]) / (2 * own.shape[1] * others.shape[1])
        )
    return found


def _ranks(scores: FloatArray) -> FloatArray:
    """Midranks: `float64[n]`."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _standardized(terms: FloatArray, error: float) -> float:
    """Normal p-value of a sum by the mean of its variance under flipped signs and of a squared standard error."""
    from scipy.special import ndtr

    variance = ((terms**2).sum() + error**2) / 2
    return max(_SMALLEST, float(2 * ndtr(-abs(terms.sum()) / np.sqrt(variance)))) if variance > 0 else 1.0


def sign_flip(sums: FloatArray, *, seed: int, flips: int = 2000, wider: float = 1.0) -> float:
    """Two-sided mid-p of a sum whose terms could each have had the other sign; 1 where all are 0.

    Far in the tail, where drawn flippings run out, it is that of a normal sum where that is smaller.

    Args:
        sums: `float64[g]`, what each group adds to the difference.
        seed: of the drawn flippings alone.
        flips: how many are drawn where there are too many to count.
        wider: by how much the flipped sums are wider than the one found, in standard deviations.
    """
    from scipy.special import ndtr

    terms = sums[np.abs(sums) > 1e-12]
    if not terms.size:
        return 1.0
    reached, total = abs(terms.sum()) / wider, 0
    tolerance = 1e-9 * np.abs(terms).sum()
    beyond = equal = 0.0
    for signs in _signs(len(terms), seed, flips):
        sums_of = np.abs(signs @ terms)
        beyond += np.count_nonzero(sums_of > reached + tolerance)
        equal += np.count_nonzero(np.abs(sums_of - reached) <= tolerance)
        total += len(signs)
    if len(terms) <= _MOST_ENUMERATED:
        return float((beyond + equal / 2) / total)
    share = float((beyond + equal / 2 + 0.5) / (total + 1))
    if beyond + equal < _FEWEST_BEYOND:
        share = min(share, 2 * float(ndtr(-reached / np.sqrt((terms**2).sum()))))
    return max(_SMALLEST, min(1.0, share))


def mcnemar_midp(only_first: int, only_second: int) -> float:
    """McNemar's mid-p of discordant pairs: twice the binomial tail, less the probability of the pairs found."""
    from scipy.special import bdtr, gammaln

    n, fewer = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    found = float(np.exp(gammaln(n + 1) - gammaln(fewer + 1) - gammaln(n - fewer + 1) - n * np.log(2)))
    if only_first == only_second:
        return 1 - found / 2
    return max(_SMALLEST, float(2 * bdtr(fewer, n, 0.5)) - found)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """McNemar's exact p-value of discordant pairs, which is never below the mid-p."""
    from scipy.special import bdtr

    n = only_first + only_second
    return min(1.0, float(2 * bdtr(min(only_first, only_second), n, 0.5))) if n else 1.0


def holm(p_values: Sequence[float]) -> FloatArray:
    """Adjust the p-values of a family of comparisons, bounding the chance of any false alarm among them.

    Holm (1979): the k-th smallest of m is multiplied by m - k + 1, made monotone, cut at 1.

    Args:
        p_values: in [0, 1]; `nan` (a comparison that could not be made) stays `nan` and does not count.

    Returns:
        `float64[m]`, adjusted, in the order given.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    adjusted = np.array(p_values, dtype=np.float64)
    made = np.flatnonzero(~np.isnan(adjusted))
    if ((adjusted[made] < 0) | (adjusted[made] > 1)).any():
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    rising = made[np.argsort(adjusted[made], kind="stable")]
    factors = np.arange(len(rising), 0, -1)
    adjusted[rising] = np.minimum(1, np.maximum.accumulate(adjusted[rising] * factors))
    return adjusted


def simultaneous_ends(difference: Difference, adjusted: float, tests: int) -> tuple[float, float]:
    """Ends of an interval that holds together with those of all tests of a family, and agrees with Holm's p-value.

    Bonferroni's; where Holm rejects and Bonferroni does not, the end that would pass 0 stops there (Guilbaud 2008).

    Args:
        difference: of the test.
        adjusted: its p-value by `holm`.
        tests: number of tests of the family.
    """
    low, high = difference.ends_at(1 - (1 - LEVEL) / max(tests, 1))
    if np.isnan(low) or low > 0 or high < 0 or not adjusted < 1 - LEVEL:
        return low, high
    return (0.0, high) if difference.value > 0 else (low, 0.0)


def _by_group(values: FloatArray, groups: Sequence[str] | None) -> FloatArray:
    """Sums of each group: `float64[g]`."""
    if groups is None:
        return values
    if len(groups) != len(values):
        raise ValueError(f"one group an example is needed: {len(values)} examples, {len(groups)} groups")
    _, group_of = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    return np.asarray(np.bincount(group_of, values), dtype=np.float64)


def _error(sums: FloatArray) -> float:
    """Standard error of a sum of independent groups."""
    groups = len(sums)
    if groups < 2:
        return float("nan")
    return float(np.sqrt(groups / (groups - 1) * ((sums - sums.mean()) ** 2).sum()))


def _difference(value: float, error: float, groups: int, p_value: float) -> Difference:
    degrees = max(groups - 1, 0)
    if groups < 2:
        nan = float("nan")
        return Difference(value, nan, nan, 0, nan, nan, degrees)
    return Difference(value, *_ends(value, error, degrees, p_value, LEVEL), 0, p_value, error, degrees)


def _ends(value: float, error: float, degrees: float, p_value: float, level: float) -> tuple[float, float]:
    """Student's interval, made to hold 0 exactly where the test does not reject at the level."""
    from scipy.special import stdtrit

    if np.isnan(error):
        return float("nan"), float("nan")
    half = float(stdtrit(degrees, (1 + level) / 2)) * error
    if value != 0:
        is_rejected = p_value < 1 - level
        half = min(half, abs(value) * (1 - 1e-9)) if is_rejected else max(half, abs(value))
    return value - half, value + half


def _signs(n: int, seed: int, flips: int) -> list[FloatArray]:
    """Blocks of signs `float64[r, n]`: every flipping where they are few, else drawn ones."""
    if n <= _MOST_ENUMERATED:
        bits: IntArray = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return [(bits * 2 - 1).astype(np.float64)]
    generator = np.random.default_rng([seed, *b"flips"])
    rows = max(1, _BLOCK // n)
    sizes = [min(rows, flips - start) for start in range(0, flips, rows)]
    drawn = (generator.integers(0, 2, size=(size, n), dtype=np.int8) for size in sizes)
    return [(signs * 2 - 1).astype(np.float64) for signs in drawn]
