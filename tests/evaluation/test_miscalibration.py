"""The ECE against its noise: a calibrated score is not called miscalibrated, and a wrong one is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probegrid.evaluation.miscalibration import miscalibration


def _population_gap(shift: float) -> float:
    """ECE of uniform probabilities whose truth is lower by a shift, cut at 0; by quadrature."""
    stated = (np.arange(1_000_000) + 0.5) / 1_000_000
    gaps = np.clip(stated - shift, 0, 1) - stated
    return float(np.abs(np.bincount(np.ceil(stated * 15).astype(int) - 1, gaps)).sum() / len(stated))


@pytest.mark.slow  # simulates much
@pytest.mark.parametrize("clustered", [False, True])
def test_a_calibrated_score_has_zero_in_its_interval(clustered: bool) -> None:
    """300 data sets; fewer than 93% of true 97.5% happen with probability 1e-5. It was 28 to 45%."""
    generator = np.random.default_rng(0)
    holds, rejected, above_floor = 0, 0, 0
    for seed in range(300):
        stated = generator.beta(2, 0.7, 120)
        labels = generator.random(120) < stated
        groups = [f"{row // 3}" for row in range(120)] if clustered else None
        found = miscalibration(labels, stated, groups, seed=seed, resamples=200)
        holds += found.low == 0
        rejected += found.p_value <= 0.05
        above_floor += found.ece > found.floor
        assert found.low <= found.debiased <= found.high
        assert found.low <= found.ece <= found.high
    assert holds / 300 >= 0.93
    assert 0.01 <= rejected / 300 <= 0.09
    assert 0.35 <= above_floor / 300 <= 0.65


@pytest.mark.slow  # simulates much
@pytest.mark.parametrize(("shift", "n"), [(0.1, 100), (0.25, 400)])
def test_the_interval_holds_the_error_of_a_wrong_score(shift: float, n: int) -> None:
    generator, truth = np.random.default_rng(1), _population_gap(shift)
    found = [
        miscalibration(generator.random(n) < np.clip(stated - shift, 0, 1), stated, seed=seed, resamples=200)
        for seed, stated in enumerate(generator.random((200, n)))
    ]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.91
    bias, debiased = (
        np.mean(values) - truth for values in zip(*((one.ece, one.debiased) for one in found), strict=True)
    )
    if n == 100:
        assert abs(debiased) < bias
    else:
        assert abs(debiased) < 0.01
        assert np.mean([one.p_value < 0.05 for one in found]) > 0.98


def test_nothing_and_one_group_have_no_interval() -> None:
    assert math.isnan(miscalibration([], [], seed=0).ece)
    one = miscalibration([True, False], [0.5, 0.5], ["a", "a"], seed=0)
    assert one.ece == 0
    assert math.isnan(one.low)


@pytest.mark.parametrize(
    ("stated", "true", "n"), [(1.0, 0.95, 20), (1.0, 0.9, 20), (0.5, 0.6, 20), (0.03, 0.08, 72)]
)
def test_one_probability_that_all_share_is_not_calibrated_for_looking_so(
    stated: float, true: float, n: int
) -> None:
    """The interval's coverage, exactly: a sum over how many of n are true. It was 55 to 83%, [0, 0] the commonest."""
    covered = 0.0
    for positives in range(n + 1):
        chance = math.comb(n, positives) * true**positives * (1 - true) ** (n - positives)
        if chance > 1e-3:
            labels = [True] * positives + [False] * (n - positives)
            found = miscalibration(labels, [stated] * n, seed=0, resamples=200)
            covered += chance * (found.low <= abs(true - stated) <= found.high + 1e-9)
    assert covered > 0.9
