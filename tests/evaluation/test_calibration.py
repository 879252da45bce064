"""Calibration against scikit-learn, a plain loop over the bins, and repeated examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from probegrid.evaluation.calibration import Binning, Calibration, brier, ce2_debiased, ece


def _data(seed: int, n: int = 200) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    probabilities = np.round(generator.beta(2, 1, size=n), 2)
    return generator.random(n) < probabilities**2, probabilities


def _ece_by_loop(labels: NDArray[np.bool_], probabilities: NDArray[np.float64], bins: int) -> float:
    total = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = (probabilities > low) & (probabilities <= high) | ((index == 0) & (probabilities == 0))
        if inside.any():
            total += inside.sum() * abs(labels[inside].mean() - probabilities[inside].mean())
    return total / len(labels)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_agrees_with_a_loop_over_the_bins(bins: int) -> None:
    labels, probabilities = _data(0)
    assert ece(labels, probabilities, bins=bins) == pytest.approx(
        _ece_by_loop(labels, probabilities, bins), abs=1e-12
    )


def test_ece_by_hand() -> None:
    """Bins of one half: (0.2, 0.4) hold one positive of two, (0.9, 0.9) hold one of two."""
    assert ece([1, 0, 1, 0], [0.2, 0.4, 0.9, 0.9], bins=2) == pytest.approx((0.2 + 0.4) / 2)
    assert ece([0, 1], [0.0, 1.0]) == 0.0
    assert ece([1, 0], [0.0, 1.0]) == 1.0


WORKED = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1], [0.95, 0.85, 0.75, 0.65, 0.35, 0.9, 0.15, 0.45, 0.55, 0.7]


def test_the_worked_values() -> None:
    assert ece(*WORKED, bins=5) == pytest.approx(0.21)
    assert ece(*WORKED, bins=5, binning="mass") == pytest.approx(0.19)
    assert brier(*WORKED) == pytest.approx(0.156)
    for bins, plain, debiased in ((5, 0.05275, -0.04725), (2, 0.0009, -0.0491)):
        binned = Calibration(*WORKED, bins=bins, binning="mass")
        assert binned.squared_gap(debiased=False) == pytest.approx(plain)
        assert binned.squared_gap() == pytest.approx(debiased)
        assert ce2_debiased(*WORKED, bins=bins) == 0


def test_the_squared_gap_is_debiased() -> None:
    """Of calibrated probabilities it is 0 on average, of others the square of what they are off by; plain it is not."""
    generator, stated = np.random.default_rng(5), np.repeat([0.2, 0.6, 0.9], 10)
    found = [
        [
            Calibration(generator.random(30) < true, stated, bins=10).squared_gap(debiased=kind)
            for kind in (True, False)
        ]
        for true in (stated, stated - 0.1)
        for _ in range(2000)
    ]
    right, wrong = np.reshape(found, (2, 2000, 2)).mean(axis=1)
    assert right[0] == pytest.approx(0, abs=1e-3)
    assert wrong[0] == pytest.approx(0.01, abs=2e-3)
    assert right[1] > 0.01
    assert ce2_debiased([0] * 30, stated, bins=10) == pytest.approx(math.sqrt((0.2**2 + 0.6**2 + 0.9**2) / 3))
    assert math.isnan(ce2_debiased([True, False], [0.2, 0.8], bins=2))
    assert math.isnan(Calibration([], []).squared_gap(debiased=False))


def test_a_bin_is_open_below_and_closed_above() -> None:
    assert len(Calibration([1, 0], [0.5, 0.5000001], bins=2).reliability().weight) == 2
    assert len(Calibration([1, 0], [0.4999999, 0.5], bins=2).reliability().weight) == 1


def test_equal_mass_bins_hold_equal_numbers() -> None:
    labels, _ = _data(1, n=100)
    skewed = np.linspace(0.01, 0.99, 100) ** 6
    weight = Calibration(labels, skewed, bins=10, binning="mass").reliability().weight
    assert weight == pytest.approx(np.full(10, 0.1))
    assert ece(labels, skewed, bins=10, binning="mass") != pytest.approx(ece(labels, skewed, bins=10))


def test_reliability_agrees_with_sklearn() -> None:
    labels, _ = _data(2)
    probabilities = np.random.default_rng(2).uniform(0.01, 0.99, size=len(labels))
    accuracy, confidence = calibration_curve(labels, probabilities, n_bins=10)
    points = Calibration(labels, probabilities, bins=10).reliability()
    assert points.accuracy == pytest.approx(accuracy)
    assert points.confidence == pytest.approx(confidence)
    assert points.weight.sum() == pytest.approx(1)


def test_brier_agrees_with_sklearn() -> None:
    labels, probabilities = _data(3)
    weights = np.random.default_rng(3).exponential(size=len(labels))
    assert brier(labels, probabilities) == pytest.approx(brier_score_loss(labels, probabilities), abs=1e-12)
    assert brier(labels, probabilities, weights) == pytest.approx(
        brier_score_loss(labels, probabilities, sample_weight=weights), abs=1e-12
    )


def test_a_weight_is_a_multiplicity() -> None:
    labels, probabilities = _data(4)
    weights = np.random.default_rng(4).integers(0, 4, size=len(labels))
    repeated = np.repeat(labels, weights), np.repeat(probabilities, weights)
    assert ece(labels, probabilities, weights) == pytest.approx(ece(*repeated), abs=1e-12)
    assert brier(labels, probabilities, weights) == pytest.approx(brier(*repeated), abs=1e-12)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_no_examples_have_no_calibration(binning: Binning) -> None:
    assert math.isnan(ece([], [], binning=binning))
    assert math.isnan(brier([], []))


@pytest.mark.parametrize("probability", [-0.01, 1.01, math.nan])
def test_a_probability_outside_its_range_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="at index 1"):
        ece([0, 1], [0.5, probability])
    with pytest.raises(ValueError, match="at index 1"):
        brier([0, 1], [0.5, probability])


def test_unknown_binnings_and_no_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="'width' or 'mass'"):
        ece([0, 1], [0.5, 0.5], binning="equal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        ece([0, 1], [0.5, 0.5], bins=0)
