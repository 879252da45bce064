"""Paired comparisons: worked values, brute force, false alarms and agreement with the interval."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from probegrid.evaluation.delong import Placements, covariance
from probegrid.evaluation.paired import (
    compare_areas,
    compare_shares,
    holm,
    mcnemar_exact,
    mcnemar_midp,
    sign_flip,
    simultaneous_ends,
    swapped,
)


@pytest.mark.parametrize(
    ("only_first", "only_second", "exact", "mid"),
    [(3, 10, 0.092285, 0.057373), (5, 5, 1, 0.876953), (0, 4, 0.125, 0.0625), (0, 0, 1, 1)],
)
def test_mcnemar_by_worked_values(only_first: int, only_second: int, exact: float, mid: float) -> None:
    assert mcnemar_exact(only_first, only_second) == pytest.approx(exact, abs=1e-6)
    assert mcnemar_midp(only_first, only_second) == pytest.approx(mid, abs=1e-6)
    assert mcnemar_midp(only_second, only_first) == mcnemar_midp(only_first, only_second)
    first = np.array([True] * only_first + [False] * only_second + [True] * 400)
    second = np.array([False] * only_first + [True] * only_second + [True] * 400)
    assert compare_shares(first, second, seed=0).p_value == pytest.approx(mid, abs=1e-6)


def test_flipped_signs_are_all_flippings() -> None:
    terms = np.array([0.3, -0.1, 0.25, 0.2, 0.1])
    sums = np.array([abs(np.dot(signs, terms)) for signs in itertools.product((-1, 1), repeat=5)])
    found = abs(terms.sum())
    expected = np.mean((sums > found + 1e-9) + (abs(sums - found) <= 1e-9) / 2)
    assert sign_flip(terms, seed=0) == pytest.approx(expected)
    assert sign_flip(np.concatenate([terms, np.zeros(50)]), seed=0) == pytest.approx(expected)
    assert sign_flip(np.zeros(4), seed=0) == 1


def test_clusters_are_flipped_wider_than_they_are() -> None:
    """By 15 / 14 in variance, eight clusters' sums against all 256 flippings; not so the linear parts of two labels."""
    generator = np.random.default_rng(6)
    labels, group = np.arange(40) % 2 == 0, np.repeat(np.arange(8), 5)
    first, second = (labels + generator.normal(size=40) for _ in range(2))
    terms = np.bincount(group, swapped(labels, first, second))
    sums = np.abs([np.dot(signs, terms) for signs in itertools.product((1, -1), repeat=8)])
    found = compare_areas((labels, first), (labels, second), group.astype(str).tolist(), seed=0)
    assert found.p_value == pytest.approx(np.mean(sums > abs(terms.sum()) * math.sqrt(14 / 15)))
    other = np.where(np.arange(40) < 10, ~labels, labels)
    contributions = (Placements.of(*of).contributions() for of in ((labels, first), (other, second)))
    parts = np.bincount(group, np.subtract(*contributions))
    flipped = np.abs([np.dot(signs, parts) for signs in itertools.product((1, -1), repeat=8)])
    found = compare_areas((labels, first), (other, second), group.astype(str).tolist(), seed=0)
    reached = abs(parts.sum())
    expected = np.mean((flipped > reached + 1e-9) + (abs(flipped - reached) <= 1e-9) / 2)
    assert found.p_value == pytest.approx(expected)


def test_few_of_a_class_are_standardized() -> None:
    """By the mean of two variances: that under swaps, and DeLong's."""
    generator = np.random.default_rng(7)
    labels = np.arange(60) < 6
    first, second = (labels + generator.normal(size=60) for _ in range(2))
    terms = swapped(labels, first, second)
    one, other = Placements.of(labels, first), Placements.of(labels, second)
    delong = one.variance() + other.variance() - 2 * covariance(one, other)
    z = terms.sum() / math.sqrt(((terms**2).sum() + delong * 60 / 59) / 2)
    found = compare_areas((labels, first), (labels, second), seed=0)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert compare_areas((labels, first), (labels, first), seed=0).p_value == 1


def test_swapping_ranks_is_a_sum_of_signs() -> None:
    """After any swaps the difference of the two areas, ranked anew, is the signed sum."""
    generator = np.random.default_rng(1)
    labels = generator.random(40) < 0.4
    scores = np.round(generator.normal(size=(2, 40)) + labels, 1)
    ranks = stats.rankdata(scores, axis=1)
    terms = swapped(labels, *scores)
    for _ in range(20):
        is_swapped = generator.random(40) < 0.5
        first, second = np.where(is_swapped, ranks[::-1], ranks)
        difference = roc_auc_score(labels, first) - roc_auc_score(labels, second)
        assert np.dot(np.where(is_swapped, -1, 1), terms) == pytest.approx(difference)


def test_a_scoring_does_not_differ_from_itself() -> None:
    labels, scores = np.arange(30) % 3 == 0, np.random.default_rng(0).normal(size=30)
    area = compare_areas((labels, scores), (labels, np.exp(scores)), seed=0)
    assert (area.value, area.low, area.high, area.p_value) == (0, 0, 0, 1)
    share = compare_shares(labels, labels, seed=0)
    assert (share.value, share.p_value) == (0, 1)
    assert share.low < 0 < share.high


def test_one_class_and_one_group_have_no_interval() -> None:
    assert math.isnan(compare_areas(([True] * 4, range(4)), ([True] * 4, range(4)), seed=0).value)
    one_group = compare_shares([True, False], [False, False], ["a", "a"], seed=0)
    assert one_group.value == 0.5
    assert math.isnan(one_group.low)
    assert math.isnan(one_group.p_value)


def test_pairing_finds_what_two_intervals_cannot() -> None:
    """A small gain on scores that share most of their noise."""
    generator = np.random.default_rng(8)
    labels = generator.random(400) < 0.5
    scores = labels + generator.normal(size=400)
    better = scores + 0.25 * labels + 0.05 * generator.normal(size=400)
    difference = compare_areas((labels, better), (labels, scores), seed=0)
    assert difference.low > 0
    assert difference.p_value < 0.001
    mirrored = compare_areas((labels, scores), (labels, better), seed=0)
    assert (mirrored.value, mirrored.low) == pytest.approx((-difference.value, -difference.high))
    assert mirrored.p_value == difference.p_value


def test_a_p_value_goes_beyond_what_flippings_can_count() -> None:
    """Against the exact binomial: 150 discordant pairs to 30, in groups of one and of two."""
    first, second = np.arange(400) < 150, (np.arange(400) >= 150) & (np.arange(400) < 180)
    exact = stats.binomtest(30, 180).pvalue
    alone = compare_shares(first, second, seed=0)
    assert math.log(alone.p_value) == pytest.approx(math.log(exact), rel=0.05)
    rows = [f"{row}" for row in range(400)]
    grouped = compare_areas(
        (np.arange(400) % 2 == 0, first + np.arange(400) % 2),
        (np.arange(400) % 2 == 0, np.arange(400)),
        rows,
        seed=0,
    )
    assert grouped.p_value < 1


@pytest.mark.slow  # simulates much
@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("clustered", [False, True])
def test_false_alarms_come_as_often_as_they_should(share: float, clustered: bool) -> None:
    """800 comparisons of two scorings equally good by construction, 5 to 25 of 50 positive: as many p-values below 5%
    as there should be within three standard errors, and the interval holds 0 in the others alone."""
    generator = np.random.default_rng(9)
    alarms = {"auroc": 0, "accuracy": 0}
    for seed in range(800):
        group = np.repeat(np.arange(25), 2) if clustered else np.arange(50)
        labels = generator.permutation(np.arange(50) < 50 * share)
        shared = labels + generator.normal(size=50) + 0.7 * generator.normal(size=50)[group]
        first, second = (shared + generator.normal(size=50) for _ in range(2))
        groups = group.astype(str).tolist() if clustered else None
        area = compare_areas((labels, first), (labels, second), groups, seed=seed, flips=400)
        verdict = compare_shares(
            (first > 0.6) == labels, (second > 0.6) == labels, groups, seed=seed, flips=400
        )
        for name, one in (("auroc", area), ("accuracy", verdict)):
            alarms[name] += one.p_value < 0.05
            assert (one.low <= 0 <= one.high) == (one.p_value >= 0.05)
    assert all(0.025 <= count / 800 <= 0.075 for count in alarms.values()), alarms


def test_intervals_that_hold_together_agree_with_holm() -> None:
    generator = np.random.default_rng(3)
    labels = generator.random(300) < 0.5
    base = labels + generator.normal(size=300)
    ones = [
        compare_areas((labels, base + gain * labels + generator.normal(size=300) / 2), (labels, base), seed=0)
        for gain in np.linspace(0, 0.8, 12)
    ]
    adjusted = holm([one.p_value for one in ones])
    assert {p < 0.05 for p in adjusted} == {True, False}
    for one, p_holm in zip(ones, adjusted, strict=True):
        low, high = simultaneous_ends(one, p_holm, len(ones))
        assert low <= one.low + 1e-12 or low == 0
        assert (low < 0 < high) == (p_holm >= 0.05)


def test_holm_by_hand() -> None:
    """Holm (1979): 0.01 * 4, 0.02 * 3, 0.03 * 2 and 0.04 * 1, each at least the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


def test_holm_leaves_out_what_was_not_compared() -> None:
    adjusted = holm([0.01, math.nan, 0.02])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - step) > 0.05:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


@pytest.mark.parametrize("p_values", [[-0.1], [0.5, 1.2]])
def test_holm_refuses_what_is_no_p_value(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        holm(p_values)
