"""How far stated probabilities lie from observed frequencies.

A probability is that of the positive label (correct, true). Weights are multiplicities, as in `ranking`; bins
are fixed by the examples as given, so that every weighting of them is compared on the same bins.

Shapes: n examples, b bins, r weightings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray, as_labels, as_probabilities, as_weights, ratio

Binning = Literal["width", "mass"]


@dataclass(frozen=True)
class Reliability:
    """The points of a reliability curve, one a bin that holds examples, in order of rising probability.

    Attributes:
        confidence: `float64[k]`, mean probability in the bin.
        accuracy: `float64[k]`, share of positives in the bin.
        weight: `float64[k]`, share of the examples in the bin.
    """

    confidence: FloatArray
    accuracy: FloatArray
    weight: FloatArray


class Calibration:
    """Labels and probabilities, put into bins once.

    Args:
        labels: `bool[n]`, true for the positive class.
        probabilities: `float[n]` in [0, 1], of the positive class.
        bins: number of bins; 15 as in Guo et al. (2017, "On calibration of modern neural networks").
        binning: `width` for bins of equal width, each open below and closed above (0 falls in the first);
            `mass` for bins between quantiles, which hold equal numbers of examples as far as ties allow.

    Raises:
        ValueError: shapes differ, a label is not true or false, a probability lies outside [0, 1], no bins,
            or a binning that is neither.
    """

    def __init__(
        self, labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, binning: Binning = "width"
    ) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self._labels = as_labels(labels).astype(np.float64)
        self._probabilities = as_probabilities(probabilities, len(self._labels))
        inner_edges = _inner_edges(self._probabilities, bins, binning)
        self.bin_of = np.searchsorted(inner_edges, self._probabilities, side="left")
        """`intp[n]`, the bin of each example."""
        self._membership = (self.bin_of[:, None] == np.arange(bins)).astype(np.float64)  # [n, b]

    def ece(self, weights: ArrayLike | None = None) -> FloatArray:
        """Expected calibration error: `float64[r]` in [0, 1], lower is better.

        The mean over bins of `|accuracy - confidence|`, each bin by its weight. A plug-in estimate: on few
        examples it is above zero even for a calibrated model. `nan` where no example has weight.
        """
        multiplicities = as_weights(weights, len(self._labels))
        gaps = multiplicities @ (self._membership * (self._labels - self._probabilities)[:, None])
        return ratio(np.abs(gaps).sum(axis=1), multiplicities.sum(axis=1))

    def squared_gap(self, *, debiased: bool = True) -> float:
        """Mean over bins of (accuracy - confidence)^2, each bin by its share.

        Args:
            debiased: what chance adds, accuracy (1 - accuracy) / (size - 1), is taken off each bin, so that it may
                fall below 0: Kumar, Liang & Ma (2019, arXiv 1909.10155). Bins of one example, of which that is not
                known, are left out. `nan` where no bin holds enough.
        """
        sizes = self._membership.sum(axis=0)
        held = sizes >= (2 if debiased else 1)
        if not held.any():
            return float("nan")
        sizes = sizes[held]
        accuracy, confidence = (
            (values @ self._membership)[held] / sizes for values in (self._labels, self._probabilities)
        )
        chance = accuracy * (1 - accuracy) / (sizes - 1) if debiased else 0.0
        return float(sizes @ ((accuracy - confidence) ** 2 - chance) / len(self._labels))

    def gaps(self) -> FloatArray:
        """Share of positives less mean probability of each bin, times the bin's share: `float64[b]`."""
        n = max(len(self._labels), 1)
        return np.asarray((self._labels - self._probabilities) @ self._membership / n)

    def spread(self, gaps: FloatArray) -> FloatArray:
        """By how much each example's probability is off where its bin has this gap: `float64[n]`."""
        shares = self._membership.mean(axis=0)
        return np.asarray(ratio(gaps, shares)[self.bin_of])

    def brier(self, weights: ArrayLike | None = None) -> FloatArray:
        """Mean squared difference of probability and label: `float64[r]` in [0, 1], lower is better.

        Brier (1950). `nan` where no example has weight.
        """
        multiplicities = as_weights(weights, len(self._labels))
        return ratio(multiplicities @ (self._labels - self._probabilities) ** 2, multiplicities.sum(axis=1))

    def reliability(self) -> Reliability:
        """Mean probability, share of positives and share of examples of every bin that holds any."""
        sizes = self._membership.sum(axis=0)
        held = sizes > 0
        return Reliability(
            confidence=(self._probabilities @ self._membership)[held] / sizes[held],
            accuracy=(self._labels @ self._membership)[held] / sizes[held],
            weight=sizes[held] / sizes.sum(),
        )


def _inner_edges(probabilities: FloatArray, bins: int, binning: Binning) -> FloatArray:
    fractions = np.arange(1, bins) / bins
    if binning == "width":
        return fractions
    if binning == "mass":
        return np.quantile(probabilities, fractions) if probabilities.size else fractions
    raise ValueError(f"binning must be 'width' or 'mass', got {binning!r}")


def ece(
    labels: ArrayLike,
    probabilities: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    bins: int = 15,
    binning: Binning = "width",
) -> float:
    """Expected calibration error in [0, 1], lower is better; see `Calibration.ece`."""
    return float(Calibration(labels, probabilities, bins=bins, binning=binning).ece(weights)[0])


def ce2_debiased(
    labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 15, binning: Binning = "mass"
) -> float:
    """Root of the debiased mean squared gap, 0 where that is negative; see `Calibration.squared_gap`."""
    gap = Calibration(labels, probabilities, bins=bins, binning=binning).squared_gap()
    return float(np.sqrt(np.maximum(gap, 0)))


def brier(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Brier score in [0, 1], lower is better; see `Calibration.brier`."""
    return float(Calibration(labels, probabilities).brier(weights)[0])
