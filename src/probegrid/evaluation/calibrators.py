"""Probabilities from scores, fitted on examples that are not tested: Platt's sigmoid and isotonic regression.

Knows labels and scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import FloatArray, as_labels, as_scores

Calibrator = Callable[[FloatArray], FloatArray]
"""From scores `float64[n]` to probabilities of true, `float64[n]`."""

_STEPS = 100
_RIDGE = 1e-12


@dataclass(frozen=True)
class Sigmoid:
    """The probability 1 / (1 + exp(-(slope * score + offset)))."""

    slope: float
    offset: float

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Probabilities of scores."""
        from scipy.special import expit

        return np.asarray(expit(self.slope * scores + self.offset), dtype=np.float64)


def platt(labels: ArrayLike, scores: ArrayLike, *, smoothed: bool = True) -> Sigmoid:
    """Fit a sigmoid by maximum likelihood.

    Args:
        labels: `bool[n]`, both values among them.
        scores: `float[n]`, finite.
        smoothed: whether the targets are Platt's (1999), (n+ + 1) / (n+ + 2) and 1 / (n- + 2), which keep classes that
            scores tell apart without fault from an infinite slope.
    """
    from scipy.special import expit

    truth = as_labels(labels)
    found = as_scores(scores, len(truth))
    positives, negatives = int(truth.sum()), int((~truth).sum())
    high, low = ((positives + 1) / (positives + 2), 1 / (negatives + 2)) if smoothed else (1.0, 0.0)
    targets = np.where(truth, high, low)
    centre, spread = found.mean(), found.std() or 1.0
    design = np.stack([(found - centre) / spread, np.ones(len(found))], axis=1)
    weights = np.zeros(2)
    for _ in range(_STEPS):
        chances = expit(design @ weights)
        gradient = design.T @ (chances - targets)
        hessian = (design * (chances * (1 - chances))[:, None]).T @ design + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights -= step / max(1.0, float(np.abs(step).max()) / 5)
        if np.abs(step).max() < 1e-10:
            break
    return Sigmoid(float(weights[0] / spread), float(weights[1] - weights[0] * centre / spread))


def isotonic(labels: ArrayLike, scores: ArrayLike) -> Calibrator:
    """Fit the rising step function of least squares; linear between its steps, constant beyond them.

    Tied scores are averaged first. It makes ties: an AUROC after it is another than before it.

    Args:
        labels: `bool[n]`.
        scores: `float[n]`, finite.
    """
    truth = as_labels(labels)
    knots, place, counts = np.unique(as_scores(scores, len(truth)), return_inverse=True, return_counts=True)
    levels = _pooled(np.bincount(place, truth) / counts, counts.astype(np.float64))

    def calibrate(values: FloatArray) -> FloatArray:
        return np.asarray(np.interp(values, knots, levels), dtype=np.float64)

    return calibrate


def _pooled(means: FloatArray, weights: FloatArray) -> FloatArray:
    """The rising sequence nearest to a sequence of means: neighbours that fall are pooled (Ayer et al. 1955)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for mean, weight in zip(means.tolist(), weights.tolist(), strict=True):
        blocks.append((mean, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (first, before, length), (second, after, more) = blocks[-2:]
            pooled = (first * before + second * after) / (before + after)
            blocks[-2:] = [(pooled, before + after, length + more)]
    return np.repeat([mean for mean, _, _ in blocks], [length for _, _, length in blocks])
