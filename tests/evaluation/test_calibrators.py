"""Platt's sigmoid and isotonic regression by worked values, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from probegrid.evaluation.calibration import ece
from probegrid.evaluation.calibrators import isotonic, platt

SCORES = np.array([-2, -1, -0.5, 0, 0.3, 1, 1.5, 2])
LABELS = [0, 0, 1, 0, 1, 0, 1, 1]


def test_the_worked_values() -> None:
    plain, smoothed = platt(LABELS, SCORES, smoothed=False), platt(LABELS, SCORES)
    assert (plain.slope, plain.offset) == pytest.approx((1.096016, -0.200955), abs=1e-5)
    assert (smoothed.slope, smoothed.offset) == pytest.approx((0.627358, -0.107946), abs=1e-5)
    assert isotonic(LABELS, SCORES)(SCORES) == pytest.approx([0, 0, 0.5, 0.5, 0.5, 0.5, 1, 1])


def test_classes_told_apart_without_fault_have_a_finite_slope() -> None:
    found = platt([0] * 20 + [1] * 20, np.arange(40.0))
    assert 0 < found.slope < 10
    assert found(np.array([-1000.0, 1000.0])) == pytest.approx([0, 1])


@pytest.mark.parametrize("fit", [platt, isotonic])
def test_an_overconfident_score_is_put_right_on_other_examples(fit: object) -> None:
    generator = np.random.default_rng(0)
    log_odds = generator.normal(size=4000)
    labels = generator.random(4000) < expit(log_odds)
    seen, new = np.arange(4000) < 2000, np.arange(4000) >= 2000
    calibrated = fit(labels[seen], 4 * log_odds[seen])(4 * log_odds[new])  # type: ignore[operator]
    assert ece(labels[new], calibrated) < 0.05 < ece(labels[new], expit(4 * log_odds[new]))
