"""Choices by the validation split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from probegrid.evaluation.selection import best_column, best_threshold


def test_the_highest_auroc_wins_and_log_loss_decides_a_tie() -> None:
    labels = np.array([True, True, False, False])
    good, reversed_, timid = (
        np.array([3.0, 2, -2, -3]),
        np.array([-3.0, -2, 2, 3]),
        np.array([0.3, 0.2, 0.1, 0]),
    )
    assert best_column(labels, np.stack([reversed_, timid, good], axis=1)) == 2
    assert best_column(labels, np.stack([good, timid, good], axis=1)) == 0
    assert best_column(labels, np.stack([100 * reversed_, timid], axis=1)) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=30))
def test_no_threshold_does_better(rows: list[tuple[bool, int]]) -> None:
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    if labels.all() or not labels.any():
        with pytest.raises(ValueError, match="both classes"):
            best_threshold(labels, scores)
        return
    threshold = best_threshold(labels, scores)
    assert threshold not in scores
    called = scores > np.arange(-6, 6)[:, None] + 0.5
    best = np.max(called[:, labels].mean(axis=1) + (~called[:, ~labels]).mean(axis=1)) / 2
    assert balanced_accuracy_score(labels, scores > threshold) == pytest.approx(best)


def test_of_equally_good_thresholds_the_nearest_to_zero_is_taken() -> None:
    assert best_threshold([False, True, False, True], [-3.0, -1, 1, 4]) == -2.0
    assert best_threshold([False, True], [2.0, 5.0]) == 3.5
