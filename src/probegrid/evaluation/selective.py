"""What is kept when the least sure answers are rejected: accuracy at a coverage, areas over all coverages, PRR.

Knows labels, grades and scores, and what stands behind them. Accuracy and risk are of the examples that are kept; the
areas are means over how many are.

Shapes: n examples, r weightings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray, as_scores, ratio
from probegrid.evaluation.intervals import Estimate, Resampled
from probegrid.evaluation.ranking import RankCounts, Ranking, accuracy_at, risk_coverage_curve
from probegrid.evaluation.shares import FEW_ERRORS, Ends, Standing, few_share_ends, ranked_ends, share_ends

COVERAGES_PERCENT = (80, 90, 95)
SELECTIVE = ("aurc", "eaurc", *(f"accuracy_at_{percent}" for percent in COVERAGES_PERCENT), "augrc", "prr")
"""What `selective_metrics` gives."""
RISK = 0.1
"""Of which the coverage that keeps to it is reported."""

_ROUNDING = 1e-9
_UNSEEN = 0.09
"""How much farther an end of a PRR is for each e-fold that a class is rarer; chosen by simulation."""


def selective_metrics(counts: RankCounts) -> dict[str, FloatArray]:
    """Every metric of rejection by its name, `float64[r]` each."""
    kept = counts.accuracy_at([percent / 100 for percent in COVERAGES_PERCENT])
    return {
        "aurc": counts.aurc(),
        "eaurc": counts.excess_aurc(),
        **{f"accuracy_at_{percent}": kept[:, column] for column, percent in enumerate(COVERAGES_PERCENT)},
        "augrc": counts.augrc(),
        "prr": counts.prr(),
    }


def selective_ends(name: str, drawn: Resampled, standing: Standing) -> Ends:
    """Interval of one of `selective_metrics`.

    Args:
        name: of the metric.
        drawn: its value and resamples.
        standing: of the labels.
    """
    value, variance, n = drawn.values[name], drawn.variance(name), standing.n
    if name.startswith("accuracy_at_"):
        kept = int(name.removeprefix("accuracy_at_")) / 100 * n
        if standing.is_clustered:
            return share_ends(value, variance, standing)
        return few_share_ends(value, variance, kept, standing)
    if name == "augrc":
        low, high = ranked_ends(2 * value, 4 * variance, n, standing)
        return low / 2, high / 2
    if name.startswith("prr"):
        return prr_ends(value, variance, standing)
    return ranked_ends(value, variance, n, standing)


def risk_estimates(estimates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """``risk_at_<coverage>``, what accuracy at a coverage lacks of 1."""
    return {
        f"risk_at_{percent}": _mirrored(estimates[f"accuracy_at_{percent}"]) for percent in COVERAGES_PERCENT
    }


def _mirrored(estimate: Estimate) -> Estimate:
    return Estimate(1 - estimate.value, 1 - estimate.high, 1 - estimate.low, estimate.n_resamples_valid)


def prr_ends(value: float, variance: float, standing: Standing) -> Ends:
    """Ends of a prediction-rejection ratio, at most 1; by what it lacks of 1, halved, as a share.

    One error that is ranked high lacks up to log(n), where others lack little: a handful of errors, or of positives,
    seldom shows such a one, and then both the ratio and its variance say too little. So the ends are moved out on the
    scale of log-odds, the more the rarer what they wait for; with `FEW_ERRORS` of a class `ranked_ends` is as wide.
    """
    lacking = (1 - value) / 2
    size = 4 * standing.positives * standing.negatives / max(standing.n, 1)
    low, high = ranked_ends(min(max(lacking, 0.0), 1.0), variance / 4, size, standing)
    if lacking > 1 and not np.isnan(low):  # below -1, where there is no edge
        half = 2 * np.sqrt(variance)
        return value - half, value + half
    fewest = min(standing.positives, standing.negatives)
    if not np.isnan(low) and fewest > FEW_ERRORS:
        unseen = _UNSEEN * (1 - FEW_ERRORS / fewest)
        low = _farther(lacking, low, 1 + unseen * np.log(standing.n / standing.positives))
        high = _farther(lacking, high, 1 + unseen * np.log(standing.n / standing.negatives))
    return 1 - 2 * high, 1 - 2 * low


def _farther(share: float, end: float, times: float) -> float:
    """An end so many times as far from a share on the scale of log-odds; where either is 0 or 1, as it is."""
    if not (0 < share < 1 and 0 < end < 1):
        return end
    middle, at = (np.log(one / (1 - one)) for one in (share, end))
    return float(1 / (1 + np.exp(-(middle + times * (at - middle)))))


def rejection_ratio(quality: ArrayLike, scores: ArrayLike, *, max_rejection: float = 1.0) -> float:
    """Prediction-rejection ratio of answers whose quality is a number, as token F1 is: at most 1, 0 for random.

    The mean quality of what is kept while up to a share of the examples, the lowest scores first, are rejected one by
    one, above that of a random order and as a share of the best order's gain. Source: Malinin & Gales (2021, arXiv
    2002.07650) as in LM-Polygraph, `pred_rej_area.py`; the random order is taken exactly, a tie by its mean. With
    correctness as quality and every example rejected it is `prr`.

    Args:
        quality: `float[n]`, finite; larger is better.
        scores: `float[n]`, finite; larger where a better answer is more likely.
        max_rejection: the largest share rejected, in (0, 1].

    Returns:
        The ratio; `nan` where quality does not vary, or fewer than one example may be rejected.

    Raises:
        ValueError: shapes differ, a number is not finite, or a share outside (0, 1].
    """
    if not 0 < max_rejection <= 1:
        raise ValueError(f"max_rejection must lie in (0, 1], got {max_rejection}")
    good = as_scores(quality, np.size(quality))
    values = as_scores(scores, len(good))
    rejected = int(max_rejection * len(good) + _ROUNDING)
    if not rejected or good.min() == good.max():
        return float("nan")
    found, best = (_kept_quality(good, order)[-rejected:].mean() for order in (values, good))
    return float((found - good.mean()) / (best - good.mean()))


def graded_prr(grades: ArrayLike, scores: ArrayLike) -> Callable[[FloatArray], FloatArray]:
    """The function from weightings of n examples to `rejection_ratio` over all rejections of grades in [0, 1].

    Args:
        grades: `float[n]` in [0, 1], as token F1 is.
        scores: `float[n]`, finite; larger where a better grade is more likely.

    Returns:
        From `float64[r, n]` to `float64[r]`; `nan` where the grades of what has weight are all alike.
    """
    by_score, by_grade = (Ranking(grades, order, is_graded=True) for order in (scores, grades))

    def prr(weights: FloatArray) -> FloatArray:
        found, best = by_score.counts(weights), by_grade.counts(weights)
        lacking = ratio(found.negatives[:, -1], found.totals[:, -1])
        gained, gainable = lacking - found.aurc(), lacking - best.aurc()
        return np.where(gainable > _ROUNDING, gained / np.maximum(gainable, _ROUNDING), np.nan)

    return prr


def _kept_quality(quality: FloatArray, scores: FloatArray) -> FloatArray:
    """Mean quality of the k highest scores for k = 1..n, `float64[n]`, in expectation over the orders of a tie."""
    _, tie_of, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    sums = np.cumsum(np.bincount(tie_of, quality))
    kept = np.arange(1, len(scores) + 1)
    mean: FloatArray = np.interp(kept, [0, *ends], [0.0, *sums]) / kept
    return mean


def risk_at(labels: ArrayLike, scores: ArrayLike, coverage: float) -> float:
    """Error rate among the highest-scored fraction `coverage` of the examples; see `RankCounts.accuracy_at`."""
    return 1 - accuracy_at(labels, scores, coverage)


def coverage_at_risk(labels: ArrayLike, scores: ArrayLike, risk: float) -> float:
    """The greatest share k / n of examples that can be kept with at most `risk` errors among them; 0 for none.

    The risk does not rise steadily with coverage; the greatest share counts.
    """
    coverage, risks = risk_coverage_curve(labels, scores)
    kept = coverage[risks <= risk * (1 + _ROUNDING) + 1e-12]
    return float(kept.max()) if kept.size else 0.0
