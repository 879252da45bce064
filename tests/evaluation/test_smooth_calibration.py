"""Smooth ECE against its worked values, and against the kernel summed over its reflections and integrated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from probegrid.evaluation.smooth_calibration import SmoothedGaps, smooth_ece

WORKED = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1], [0.95, 0.85, 0.75, 0.65, 0.35, 0.9, 0.15, 0.45, 0.55, 0.7]


def test_the_worked_values() -> None:
    """By exact integrals; the authors' code with its grid of 200 points gives .1555, .2438 and .1241."""
    gaps = SmoothedGaps(*WORKED)
    assert gaps.error(0.1) == pytest.approx(0.155763, abs=1e-6)
    assert gaps.error(0.05) == pytest.approx(0.244428, abs=1e-6)
    assert smooth_ece(*WORKED) == pytest.approx(0.125099, abs=1e-6)


@pytest.mark.parametrize("width", [0.02, 0.1, 0.7])
def test_the_error_is_the_integral_of_the_reflected_kernel(width: float) -> None:
    generator = np.random.default_rng(0)
    stated = generator.random(30)
    labels = generator.random(30) < stated**2
    images = np.concatenate([2 * shift + sign * stated for shift in range(-4, 5) for sign in (1, -1)])
    weights = np.tile(labels - stated, 18)
    points = np.linspace(0, 1, 20_001)
    parts = (points[:, None] for points in np.array_split(points, 20))
    smoothed = np.concatenate([stats.norm.pdf(part, images, width) @ weights for part in parts]) / 30
    by_quadrature = integrate.trapezoid(np.abs(smoothed), points)
    assert SmoothedGaps(labels, stated).error(width) == pytest.approx(by_quadrature, abs=1e-5)


def test_it_is_the_error_at_its_own_width() -> None:
    generator = np.random.default_rng(1)
    stated = generator.random(500)
    labels = generator.random(500) < np.clip(stated - 0.2, 0, 1)
    found = smooth_ece(labels, stated)
    assert SmoothedGaps(labels, stated).error(found) == pytest.approx(found, abs=1e-6)
    assert 0.12 < found < 0.2


def test_the_edges() -> None:
    assert smooth_ece([True, False], [1.0, 0.0]) == 0
    assert smooth_ece([False, False], [1.0, 1.0]) == pytest.approx(1)
    assert math.isnan(smooth_ece([], []))
    with pytest.raises(ValueError, match="at index 1"):
        smooth_ece([True, False], [0.5, 1.5])
