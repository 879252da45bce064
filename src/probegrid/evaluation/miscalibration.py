"""How far a score is from being calibrated, beyond what a calibrated one would show by chance.

Knows labels, probabilities and clusters. The ECE is a sum of absolute values: where every probability is right it is
still above 0, by its noise floor. Here stand the floor, by drawing labels from the probabilities themselves
(consistency resampling, Bröcker & Smith 2007); the share of such drawings that look as bad (a test of calibration); and
an interval, by inverting a test: an ECE of x is held possible where gaps of that size, with noise, give what was found
neither too seldom nor too often. How the gaps lie over the bins matters and is not known: they are taken as found, as
found less their noise, and in part as evenly spread or as gathered as they may be; the interval holds all of these.

Shapes: n examples, b bins, r resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.calibration import Calibration
from probegrid.evaluation.checks import FloatArray, IntArray, as_labels, as_probabilities
from probegrid.evaluation.shares import LEVEL, Standing, student

_STEPS = 14  # of a bisection: 1 in 16 thousand
_SPREAD = 0.3  # how far towards evenly spread; chosen by simulation
_GATHERED = 0.5
_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Miscalibration:
    """The ECE against its noise.

    Attributes:
        ece: plug-in, as `Calibration.ece`.
        low, high: 95% interval of the ECE of the population; it holds 0 unless `p_value` is below 2.5%.
        floor: what a calibrated score of these probabilities shows on average.
        debiased: the size of gaps that gives the ECE found as often as not; 0 where it is below the floor.
        p_value: of calibration.
    """

    ece: float
    low: float
    high: float
    floor: float
    debiased: float
    p_value: float


def miscalibration(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    resamples: int = 2000,
    bins: int = 15,
) -> Miscalibration:
    """Measure the ECE in bins of equal width, and what of it may be noise.

    Args:
        labels: `bool[n]`.
        probabilities: `float[n]` in [0, 1].
        groups: cluster of each example; None: each stands alone.
        seed: of the drawing alone.
        resamples: drawings.
        bins: number of bins.
    """
    truth = as_labels(labels).astype(np.float64)
    stated = as_probabilities(probabilities, len(truth))
    calibration = Calibration(truth, stated, bins=bins)
    found = calibration.gaps()
    generator = np.random.default_rng([seed, *b"calibration"])
    noise = _Noise(calibration.bin_of, bins, stated, groups, generator, resamples)
    variance = np.bincount(calibration.bin_of, stated * (1 - stated), bins) / max(len(truth), 1) ** 2
    certain = found * np.maximum(0, 1 - variance / np.maximum(found**2, 1e-300))
    ece = float(np.abs(found).sum())
    if not len(truth) or noise.clusters < 2:
        nan = float("nan")
        return Miscalibration(ece if len(truth) else nan, nan, nan, nan, nan, nan)
    chance = np.abs(noise.of_calibrated(truth - stated)).sum(axis=1)
    p_value = float((1 + np.count_nonzero(chance >= ece - 1e-12)) / (len(chance) + 1))
    around = noise.of_shifted(truth - stated, calibration.spread(certain)) if certain.any() else None
    test = _Test(ece, noise.of_calibrated(truth - stated) if around is None else around)
    as_found = _unit(found)
    shapes = (_unit(certain) if certain.any() else as_found, as_found)
    gathered = np.zeros(bins)
    gathered[np.argmax(np.abs(found) / np.sqrt(np.maximum(variance, 1e-12)) * (variance > 0))] = 1
    even = _unit(np.sqrt(variance) * np.where(found < 0, -1, 1))
    gathered *= np.where(found < 0, -1, 1)
    low = min(
        test.size(_TAIL, shape)
        for shape in (*shapes, _unit((1 - _GATHERED) * as_found + _GATHERED * gathered))
    )
    high = max(
        test.size(1 - _TAIL, shape) for shape in (*shapes, _unit((1 - _SPREAD) * as_found + _SPREAD * even))
    )
    return Miscalibration(
        ece=ece,
        low=0.0 if p_value >= _TAIL else min(low, ece),
        high=max(high, ece, _largest_of_mean(truth, stated, groups)),
        floor=float(chance.mean()),
        debiased=test.size(0.5, shapes[0]),
        p_value=p_value,
    )


def _largest_of_mean(truth: FloatArray, stated: FloatArray, groups: Sequence[str] | None) -> float:
    """The largest gap of the mean probability that is possible: no ECE is smaller than the gap, so it may be as large.

    Where an ECE is found that is smaller than most of a calibrated score (0 of 20 examples at one probability, of which
    half are true), the test rejects every size of the gaps and bounds none. The variance is that of a calibrated score,
    and where this is small Wilson's at an edge: of 20 answers that are right as they all say, 16% may be wrong.
    """
    standing = Standing.of(truth > 0, groups)
    alone = standing.n / standing.design
    quantile = student(standing.clusters - 1 if standing.is_clustered else np.inf)
    at_edge = quantile**2 / (alone + quantile**2)
    spread = quantile * float(np.sqrt((stated * (1 - stated)).mean() / alone))
    found: float = abs(float((truth - stated).mean()))
    return min(1.0, found + max(spread, at_edge))


@dataclass(frozen=True)
class _Test:
    """Whether gaps of a size and a shape give the ECE that was found: the noise is `float64[r, b]`."""

    ece: float
    noise: FloatArray

    def size(self, share: float, shape: FloatArray) -> float:
        """The size of gaps at which this share of drawings has an ECE of at least the one found."""
        low, high = 0.0, 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            reached = np.mean(np.abs(middle * shape + self.noise).sum(axis=1) >= self.ece)
            low, high = (middle, high) if reached < share else (low, middle)
        return low if low == 0.0 or high - low > 0.5 else (low + high) / 2


@dataclass
class _Noise:
    """Deviations of the gaps of bins from their means, drawn; clusters are drawn whole, as they are."""

    bin_of: IntArray
    bins: int
    stated: FloatArray
    groups: Sequence[str] | None
    generator: np.random.Generator
    resamples: int

    def __post_init__(self) -> None:
        n = len(self.stated)
        names = np.arange(n) if self.groups is None else np.asarray(self.groups, dtype=object)
        self._cluster_of = np.unique(names, return_inverse=True)[1]
        self.clusters = int(self._cluster_of.max()) + 1 if n else 0

    def of_calibrated(self, residuals: FloatArray) -> FloatArray:
        """Where every probability is right: labels drawn from them, `float64[r, b]`."""
        if self.clusters < len(self.stated):
            return self._of_clusters(residuals)
        rows = np.broadcast_to(np.arange(len(self.stated)), (self.resamples, len(self.stated)))
        return self._drawn(rows, self.stated)

    def of_shifted(self, residuals: FloatArray, shift: FloatArray) -> FloatArray:
        """Where each probability is off by a shift, `float64[n]`; the examples are drawn too."""
        if self.clusters < len(self.stated):
            return self._of_clusters(residuals)
        n = len(self.stated)
        rows = self.generator.integers(n, size=(self.resamples, n))
        return self._drawn(rows, np.clip(self.stated + shift, 0, 1))

    def _drawn(self, rows: IntArray, true: FloatArray) -> FloatArray:
        n = len(true)
        mean = np.bincount(self.bin_of, true - self.stated, self.bins) / n
        drawn = np.empty((self.resamples, self.bins))
        for number, of in enumerate(rows):
            gaps = (self.generator.random(n) < true[of]) - self.stated[of]
            drawn[number] = np.bincount(self.bin_of[of], gaps, self.bins) / n
        return drawn - mean

    def _of_clusters(self, residuals: FloatArray) -> FloatArray:
        flat = self._cluster_of * self.bins + self.bin_of
        sums = np.bincount(flat, residuals, self.clusters * self.bins).reshape(self.clusters, self.bins)
        chosen = self.generator.multinomial(
            self.clusters, np.full(self.clusters, 1 / self.clusters), size=self.resamples
        )
        wider = np.sqrt(self.clusters / (self.clusters - 1)) * student(self.clusters - 1) / student(np.inf)
        deviations: FloatArray = (chosen @ sums - sums.sum(axis=0)) / len(residuals) * wider
        return deviations


def _unit(gaps: FloatArray) -> FloatArray:
    total = np.abs(gaps).sum()
    unit: FloatArray = gaps / total if total > 0 else gaps
    return unit
