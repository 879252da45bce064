"""What every evaluation asks of its arrays: checked in one place, refused in one sentence."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probegrid.errors import ConfigError

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


def as_labels(labels: ArrayLike) -> BoolArray:
    """Return the labels as `bool[n]`.

    Raises:
        ValueError: not one-dimensional, or a value other than true and false (1 and 0).
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, got shape {values.shape}")
    strange = np.flatnonzero((values != 0) & (values != 1))
    if strange.size:
        raise ValueError(
            f"labels must be true or false (1 or 0), got {values[strange[0]]} at index {strange[0]}"
        )
    return values.astype(np.bool_)


def as_scores(scores: ArrayLike, n: int) -> FloatArray:
    """Return the scores of `n` examples as `float64[n]`.

    Raises:
        ValueError: another shape, or a score that is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (n,):
        raise ValueError(f"one score a label is needed: {n} labels, scores of shape {values.shape}")
    strange = np.flatnonzero(~np.isfinite(values))
    if strange.size:
        raise ValueError(
            f"scores must be finite, got {values[strange[0]]} at index {strange[0]} "
            f"({strange.size} of {n} are not finite)"
        )
    return values


def as_score(value: object, of: str, question: str) -> float:
    """Return what somebody's own code gives as the score of an answer.

    Args:
        value: given.
        of: who gives it, in words.
        question: that was answered.

    Raises:
        ConfigError: no number, or an infinite one.
    """
    try:
        score = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        score = math.inf
    if math.isinf(score):
        raise ConfigError(
            f"{of} gives {value!r:.40} for {question[:60]!r}; a score is a finite number, or nan where there is none."
        )
    return score


def as_probabilities(probabilities: ArrayLike, n: int) -> FloatArray:
    """Return the probabilities of `n` examples as `float64[n]`.

    Raises:
        ValueError: another shape, or a value outside [0, 1].
    """
    values = as_scores(probabilities, n)
    strange = np.flatnonzero((values < 0) | (values > 1))
    if strange.size:
        raise ValueError(f"probabilities must lie in [0, 1], got {values[strange[0]]} at index {strange[0]}")
    return values


def as_weights(weights: ArrayLike | None, n: int) -> FloatArray:
    """Return weightings of `n` examples as `float64[r, n]`: `None` is one row of ones, `[n]` is one row.

    Raises:
        ValueError: another number of columns, or a weight that is negative or not finite.
    """
    if weights is None:
        return np.ones((1, n))
    values = np.atleast_2d(np.asarray(weights, dtype=np.float64))
    if values.ndim != 2 or values.shape[1] != n:
        raise ValueError(f"weights must have shape [{n}] or [r, {n}], got {np.shape(weights)}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("weights must be finite and not negative")
    return values


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide element by element; `nan` where the denominator is 0, with no warning."""
    quotient = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient
