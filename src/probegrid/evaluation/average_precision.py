"""An interval of the average precision, which every positive raises by being counted among those ranked above it.

Knows labels and scores. With five positives of a hundred the average precision found is .28 on average where that of
the population is .16, since the first positive's precision counts itself; the interval reaches down for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import ratio
from probegrid.evaluation.ranking import Ranking
from probegrid.evaluation.shares import Ends, Standing, ranked_ends

_OWN = 0.35  # of what positives add to their own precision, taken off below; chosen by simulation


def auprc_ends(
    labels: ArrayLike, scores: ArrayLike, value: float, variance: float, standing: Standing
) -> Ends:
    """Interval of an average precision: `ranked_ends`, the lower end about a value less a part of its bias.

    Args:
        labels: `bool[n]`.
        scores: `float[n]`, finite.
        value: the average precision; `nan` has no interval.
        variance: of it by resampling.
        standing: of the labels.
    """
    low, high = ranked_ends(value, variance, standing.positives, standing)
    if np.isnan(low) or value <= 0:
        return low, high
    lowered = value - _OWN * (value - precision_of_others(labels, scores))
    return min(low, ranked_ends(lowered, variance, standing.positives, standing)[0]), high


def precision_of_others(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean over positives of the precision at each one's score without itself, 0 where nothing else is ranked there."""
    counts = Ranking(labels, scores).counts()
    positives, totals = counts.positives[0], counts.totals[0]
    others = np.nan_to_num(ratio(positives[1:] - 1, totals[1:] - 1))
    return float(np.diff(positives) @ others / positives[-1])
