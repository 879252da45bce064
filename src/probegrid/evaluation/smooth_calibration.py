"""The calibration error without bins: gaps smoothed by a kernel as wide as the error itself.

Knows labels and probabilities. Source: Błasiok & Nakkiran (2023, arXiv 2309.12236), "Smooth ECE". A Gaussian that is
reflected at 0 and 1 is the heat kernel of the interval, whose eigenfunctions are cosines: the smoothed gap is a sum of
cosines, each damped by the width, and its integral up to a point is one of sines. Between two points of a fine grid the
gap has one sign, but for the few cells where it changes; so the integral of its size needs no quadrature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray, as_labels, as_probabilities

_CELLS = 4096  # of the grid; as many cosines, of which the last is damped to 1e-36 at the least width
_LEAST_WIDTH = 1e-3  # where the authors' code stops too
_BISECTIONS = 30
_ROWS = 512  # cosines computed at once


class SmoothedGaps:
    """The gaps of n examples, `label - probability`, as a function of the probability.

    Args:
        labels: `bool[n]`, true for the positive class.
        probabilities: `float[n]` in [0, 1], of the positive class.

    Raises:
        ValueError: shapes differ, a label is not true or false, or a probability lies outside [0, 1].
    """

    def __init__(self, labels: ArrayLike, probabilities: ArrayLike) -> None:
        truth = as_labels(labels).astype(np.float64)
        stated = as_probabilities(probabilities, len(truth))
        self.n = len(truth)
        self._mean, self._waves = _cosines(stated, truth - stated)

    def error(self, width: float) -> float:
        """Integral over [0, 1] of the size of the gaps smoothed by a reflected Gaussian of this standard deviation."""
        from scipy.fft import dst  # scipy takes long to import

        frequencies = np.pi * np.arange(1, _CELLS)
        damped = 2 * self._waves * np.exp(-((frequencies * width) ** 2) / 2) / frequencies
        inner = np.asarray(dst(damped, type=1)) / 2 + self._mean * np.arange(1, _CELLS) / _CELLS
        return float(np.abs(np.diff([0.0, *inner, self._mean])).sum())


def smooth_ece(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Smooth ECE in [0, 1], lower is better: the error at the width that equals it; `nan` without examples.

    Errors below 0.001 are those at a width of 0.001. As the ECE it is above zero for a calibrated model.
    """
    gaps = SmoothedGaps(labels, probabilities)
    if not gaps.n:
        return float("nan")
    low, high = _LEAST_WIDTH, 1.0
    if (least := gaps.error(low)) <= low:
        return least
    for _ in range(_BISECTIONS):  # the error falls as the width grows
        middle = (low + high) / 2
        low, high = (middle, high) if gaps.error(middle) > middle else (low, middle)
    return (low + high) / 2


def _cosines(stated: FloatArray, gaps: FloatArray) -> tuple[float, FloatArray]:
    """Mean of the gaps, and of the gaps times each cosine, `float64[_CELLS - 1]`."""
    n = max(len(gaps), 1)
    waves = np.empty(_CELLS - 1)
    for start in range(0, _CELLS - 1, _ROWS):
        numbers = np.arange(start + 1, min(start + _ROWS, _CELLS - 1) + 1)
        waves[numbers - 1] = np.cos(np.pi * numbers[:, None] * stated) @ gaps / n
    return float(gaps.sum() / n), waves
