"""What rejecting the least sure answers gives: worked values, and what the numbers are for other orders and grades."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probegrid.evaluation import ranking
from probegrid.evaluation.selective import (
    _kept_quality,
    coverage_at_risk,
    graded_prr,
    prr_ends,
    rejection_ratio,
    risk_at,
)
from probegrid.evaluation.shares import Standing, ranked_ends

WORKED = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1], [0.9, 0.8, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.3, 0.95]
tied_examples = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6)
graded_examples = st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1]), st.integers(0, 3)), min_size=2)


def test_the_worked_rejection_ratios() -> None:
    """LM-Polygraph's areas, the random order exactly; quality is a number, or correctness with two ties broken."""
    quality, scores = [0.8, 0.2, 0.9, 0.4, 0.5], [-0.1, -0.9, -0.4, -0.7, -0.3]
    assert rejection_ratio(quality, scores) == pytest.approx(0.664179, abs=1e-6)
    assert rejection_ratio(quality, scores, max_rejection=0.5) == pytest.approx(1)
    broken = [*WORKED[1][:2], 0.79, *WORKED[1][3:8], 0.29, WORKED[1][9]]
    assert rejection_ratio(WORKED[0], broken) == pytest.approx(0.479564, abs=1e-6)
    assert rejection_ratio(WORKED[0], broken, max_rejection=0.5) == pytest.approx(0.184832, abs=1e-6)
    assert rejection_ratio(*WORKED) == pytest.approx(0.556890, abs=1e-6)
    span = np.array(quality) - 0.2
    good = span / span.max()
    for grades, order, share, area, oracle in (
        (good, scores, 5, 0.683810, 0.769524),
        (good, scores, 2, 0.578571, 0.578571),
        (np.array(WORKED[0], dtype=float), broken, 10, 0.737817, 0.887381),
        (np.array(WORKED[0], dtype=float), broken, 5, 0.632302, 0.774762),
    ):
        kept, best = (_kept_quality(grades, np.array(of))[-share:].mean() for of in (order, grades))
        assert (kept, best) == pytest.approx((area, oracle), abs=1e-6)
    assert good.mean() == pytest.approx(0.514286, abs=1e-6)
    assert risk_at(*WORKED, 0.8) == pytest.approx(0.375)
    assert math.isnan(rejection_ratio([0.5, 0.5], [1, 2]))
    assert math.isnan(rejection_ratio([0.5, 0.6], [1, 2], max_rejection=0.4))
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 0"):
        rejection_ratio(quality, scores, max_rejection=0)


@given(tied_examples.filter(lambda found: 0 < sum(label for label, _ in found) < len(found)))
def test_the_rejection_ratio_of_correctness_is_prr(examples: list[tuple[bool, int]]) -> None:
    """In any unit of quality."""
    labels, scores = np.array([label for label, _ in examples]), [score for _, score in examples]
    assert rejection_ratio(3 + 2 * labels, scores) == pytest.approx(ranking.prr(labels, scores))


@given(graded_examples, st.data())
def test_weighted_grades_are_repeated_examples(
    examples: list[tuple[float, int]], data: st.DataObject
) -> None:
    grades, scores = np.array(examples, dtype=float).T
    prr = graded_prr(grades, scores)
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(grades), max_size=len(grades)))
    for weights in (np.ones(len(grades), dtype=int), np.array(counts)):
        rows = np.repeat(np.arange(len(grades)), weights)
        expected = rejection_ratio(grades[rows], scores[rows]) if rows.size else math.nan
        assert prr(weights[np.newaxis].astype(float))[0] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_coverage_at_risk_takes_the_greatest_share() -> None:
    """Risks 1, 1/2, 1/3, 1/4, 2/5: the risk falls and rises again."""
    labels, scores = [False, True, True, True, False], [5, 4, 3, 2, 1]
    assert coverage_at_risk(labels, scores, 1 / 3) == 0.8
    assert coverage_at_risk(labels, scores, 0.4) == 1
    assert coverage_at_risk(labels, scores, 0.2) == 0


@pytest.mark.parametrize("wrong", [6, 40, 200, 360, 394])
def test_the_end_that_waits_for_the_rarer_class_is_the_farther_one(wrong: int) -> None:
    """Of 400 answers, as many errors: the ratio's interval against one that moves out neither end."""
    value, variance, n = 0.6, 0.01, 400
    standing = Standing(n, n - wrong, n, min(wrong, n - wrong), 1.0)
    low, high = prr_ends(value, variance, standing)
    lacks_least, lacks_most = ranked_ends(
        (1 - value) / 2, variance / 4, 4 * wrong * (n - wrong) / n, standing
    )
    assert low < 1 - 2 * lacks_most < value < 1 - 2 * lacks_least < high < 1
    farther = (1 - 2 * lacks_most - low, high - (1 - 2 * lacks_least))
    assert (farther[0] > farther[1]) == (wrong < 200) or wrong == 200


def test_a_prr_with_five_errors_or_none_is_moved_no_farther() -> None:
    for wrong, value in ((5, 0.6), (40, 1.0)):
        standing = Standing(400, 400 - wrong, 400, wrong, 1.0)
        lacks = ranked_ends((1 - value) / 2, 0.01 / 4, 4 * wrong * (400 - wrong) / 400, standing)
        low, high = prr_ends(value, 0.01, standing)
        assert low <= 1 - 2 * lacks[1] <= value
        assert high == 1 - 2 * lacks[0]
        if wrong == 5:
            assert low == 1 - 2 * lacks[1]
