"""DeLong's variance against worked values and against all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from probegrid.evaluation.delong import Placements, covariance, logit_interval, paired_test

Y = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1]
S = [0.9, 0.8, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.3, 0.95]
S2 = [0.6, 0.7, 0.9, 0.5, 0.3, 0.8, 0.65, 0.2, 0.75, 0.4]


def test_the_worked_values() -> None:
    """The values of yandexdataschool/roc_comparison on ten examples with ties."""
    placements = Placements.of(Y, S)
    error = placements.variance() ** 0.5
    assert (placements.area, error) == pytest.approx((0.708333, 0.177756), abs=1e-6)
    wald = (placements.area - 1.959964 * error, placements.area + 1.959964 * error)
    assert wald == pytest.approx((0.359938, 1.056729), abs=1e-6)
    assert logit_interval(placements.area, error**2) == pytest.approx((0.310229, 0.929147), abs=1e-6)
    assert Placements.of(Y, S2).area == pytest.approx(0.75)
    assert paired_test(Y, S, S2) == pytest.approx((-0.155417, 0.876492), abs=1e-6)


def test_placements_are_those_of_all_pairs() -> None:
    generator = np.random.default_rng(0)
    labels, scores = generator.random(80) < 0.4, np.round(generator.normal(size=80), 1)
    wins = np.sign(scores[labels][:, None] - scores[~labels]) / 2 + 0.5
    found = Placements.of(labels, scores)
    assert found.values[labels] == pytest.approx(wins.mean(axis=1))
    assert found.values[~labels] == pytest.approx(wins.mean(axis=0))
    assert found.area == pytest.approx(wins.mean())
    assert found.contributions().sum() == pytest.approx(wins.mean())
    deviations = found.contributions() - found.area / 80
    assert (deviations**2).sum() == pytest.approx(found.variance())
    assert covariance(found, found) == found.variance()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="both classes"):
        Placements.of([True, True], [1, 2])
    with pytest.raises(ValueError, match="labels are the same"):
        covariance(Placements.of(Y, S), Placements.of(Y[::-1], S))
    assert np.isnan(logit_interval(1.0, 0.0)).all()
