"""Ranking metrics against scikit-learn, brute force over every order of tied scores, and at their edges."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from probegrid.evaluation import ranking
from probegrid.evaluation.ranking import Ranking

tied_examples = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6)


def _data(seed: int, n: int = 300, *, ties: bool) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    labels = generator.random(n) < 0.6
    scores = labels + 1.5 * generator.normal(size=n)
    return labels, np.round(scores, 0 if ties else 12)


def _risks(labels_in_order: list[bool]) -> list[float]:
    return [sum(not label for label in labels_in_order[:k]) / k for k in range(1, len(labels_in_order) + 1)]


def _mean_risks_over_tie_orders(examples: list[tuple[bool, int]]) -> list[float]:
    """Risk at k = 1..n, averaged over every order that puts higher scores first."""
    ties = [
        list(group) for _, group in itertools.groupby(sorted(examples, key=lambda e: -e[1]), lambda e: e[1])
    ]
    orders = itertools.product(*(itertools.permutations(tie) for tie in ties))
    every = [_risks([label for tie in order for label, _ in tie]) for order in orders]
    return [math.fsum(column) / len(every) for column in zip(*every, strict=True)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auroc_and_auprc_agree_with_sklearn(seed: int, ties: bool) -> None:
    labels, scores = _data(seed, ties=ties)
    weights = np.random.default_rng(seed).exponential(size=len(labels)) * (np.arange(len(labels)) % 5 > 0)
    for given_weights in (None, weights):
        reference = {"y_true": labels, "y_score": scores, "sample_weight": given_weights}
        assert ranking.auroc(labels, scores, given_weights) == pytest.approx(
            sklearn_metrics.roc_auc_score(**reference), abs=1e-12
        )
        assert ranking.auprc(labels, scores, given_weights) == pytest.approx(
            sklearn_metrics.average_precision_score(**reference), abs=1e-12
        )


@given(tied_examples)
def test_auroc_is_the_share_of_pairs_won(examples: list[tuple[bool, int]]) -> None:
    labels, scores = zip(*examples, strict=True)
    pairs = [
        1.0 if up > down else 0.5 if up == down else 0.0
        for (positive, up), (other, down) in itertools.product(examples, repeat=2)
        if positive and not other
    ]
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    assert ranking.auroc(labels, scores) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(tied_examples)
def test_aurc_is_the_mean_over_all_orders_of_ties(examples: list[tuple[bool, int]]) -> None:
    labels, scores = zip(*examples, strict=True)
    risks = _mean_risks_over_tie_orders(examples)
    assert ranking.aurc(labels, scores) == pytest.approx(np.mean(risks), abs=1e-12)
    coverage, curve = ranking.risk_coverage_curve(labels, scores)
    assert coverage == pytest.approx(np.arange(1, len(labels) + 1) / len(labels))
    assert curve == pytest.approx(risks, abs=1e-12)


@given(tied_examples)
def test_excess_aurc_is_the_distance_to_the_best_order(examples: list[tuple[bool, int]]) -> None:
    labels, scores = zip(*examples, strict=True)
    best = np.mean(_risks(sorted(labels, reverse=True)))
    expected = ranking.aurc(labels, scores) - best if len(set(labels)) == 2 else math.nan
    assert ranking.excess_aurc(labels, scores) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(tied_examples, st.integers(1, 6))
def test_accuracy_at_whole_numbers_is_the_mean_over_tie_orders(
    examples: list[tuple[bool, int]], kept: int
) -> None:
    labels, scores = zip(*examples, strict=True)
    kept = min(kept, len(labels))
    risks = _mean_risks_over_tie_orders(examples)
    assert ranking.accuracy_at(labels, scores, kept / len(labels)) == pytest.approx(
        1 - risks[kept - 1], abs=1e-12
    )


def test_accuracy_at_counts_the_last_example_by_its_fraction() -> None:
    labels, scores = [True, True, False, True, True], [5, 4, 3, 2, 1]
    assert ranking.accuracy_at(labels, scores, 0.5) == pytest.approx(2 / 2.5)
    assert ranking.accuracy_at(labels, scores, 0.9) == pytest.approx(3.5 / 4.5)
    assert ranking.accuracy_at(labels, scores, 1.0) == pytest.approx(4 / 5)


@pytest.mark.parametrize("coverage", [0.0, -0.1, 1.1, math.nan])
def test_accuracy_at_refuses_a_coverage_outside_its_range(coverage: float) -> None:
    with pytest.raises(ValueError, match="coverage must lie in"):
        ranking.accuracy_at([True, False], [1, 0], coverage)


def test_recall_at_fpr_is_the_best_threshold_within_the_rate() -> None:
    labels, scores = _data(5, n=1000, ties=False)
    false_positive_rate, true_positive_rate, _ = sklearn_metrics.roc_curve(
        labels, scores, drop_intermediate=False
    )
    expected = true_positive_rate[false_positive_rate <= 0.01].max()
    assert ranking.recall_at_fpr(labels, scores) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


def test_recall_at_fpr_takes_all_of_a_tie_or_none() -> None:
    labels = [True] * 4 + [False] * 100
    assert (
        ranking.recall_at_fpr(labels, [3, 2, 1, 1] + [1] + [0] * 99) == 1.0
    )  # 1 of 100 negatives: just allowed
    assert ranking.recall_at_fpr(labels, [3, 2, 1, 1] + [1, 1] + [0] * 98) == 0.5


def test_recall_at_fpr_allows_the_rate_itself() -> None:
    labels = [True, True] + [False] * 100
    assert ranking.recall_at_fpr(labels, [3, 1] + [2] * 29 + [0] * 71, max_fpr=0.29) == 1.0
    assert ranking.recall_at_fpr(labels, [3, 1] + [2] * 30 + [0] * 70, max_fpr=0.29) == 0.5


def test_roc_curve_agrees_with_sklearn() -> None:
    labels, scores = _data(6, ties=True)
    expected = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    for ours, theirs in zip(ranking.roc_curve(labels, scores), expected[:2], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)


@settings(deadline=None)
@given(tied_examples, st.data())
def test_a_weight_is_a_multiplicity(examples: list[tuple[bool, int]], data: st.DataObject) -> None:
    labels, scores = (np.array(column) for column in zip(*examples, strict=True))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(labels), max_size=len(labels))))
    repeated = np.repeat(labels, weights), np.repeat(scores, weights)
    for metric in (ranking.auroc, ranking.auprc, ranking.aurc, ranking.excess_aurc):
        assert metric(labels, scores, weights) == pytest.approx(metric(*repeated), abs=1e-12, nan_ok=True)
    assert ranking.accuracy_at(labels, scores, 0.7, weights) == pytest.approx(
        ranking.accuracy_at(*repeated, 0.7), abs=1e-12, nan_ok=True
    )
    assert ranking.recall_at_fpr(labels, scores, 0.3, weights) == pytest.approx(
        ranking.recall_at_fpr(*repeated, 0.3), abs=1e-12, nan_ok=True
    )


def test_rows_of_weights_do_not_touch_each_other() -> None:
    labels, scores = _data(7, n=40, ties=True)
    rows = np.random.default_rng(0).integers(0, 4, size=(5, 40)).astype(float)
    together = Ranking(labels, scores).counts(rows)
    for row, weights in enumerate(rows):
        assert together.auroc()[row] == pytest.approx(ranking.auroc(labels, scores, weights), abs=1e-15)
        assert together.aurc()[row] == pytest.approx(ranking.aurc(labels, scores, weights), abs=1e-15)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_has_no_auroc(label: bool) -> None:
    labels, scores = [label] * 4, [0.1, 0.2, 0.2, 0.4]
    both_classes: list[Callable[[list[bool], list[float]], float]] = [
        ranking.auroc,
        ranking.auprc,
        ranking.excess_aurc,
        ranking.recall_at_fpr,
    ]
    assert all(math.isnan(metric(labels, scores)) for metric in both_classes)
    assert ranking.aurc(labels, scores) == float(not label)
    assert ranking.accuracy_at(labels, scores, 0.8) == float(label)


def test_no_examples_have_no_metric() -> None:
    assert all(math.isnan(metric([], [])) for metric in (ranking.auroc, ranking.auprc, ranking.aurc))


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "message"),
    [
        ([0, 1, 2], [1, 2, 3], None, "got 2 at index 2"),
        ([0, 1], [1, math.nan], None, "got nan at index 1"),
        ([0, 1], [math.inf, 0], None, "got inf at index 0"),
        ([0, 1], [1, 2, 3], None, "2 labels, scores of shape"),
        ([[0, 1]], [1, 2], None, "one-dimensional"),
        ([0, 1], [1, 2], [1, 2, 3], "weights must have shape"),
        ([0, 1], [1, 2], [1, -1], "not negative"),
    ],
)
def test_unusable_arrays_are_refused(
    labels: list[int], scores: list[float], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ranking.auroc(labels, scores, weights)


def test_a_bootstrap_of_all_metrics_is_fast() -> None:
    labels, scores = _data(8, n=400, ties=False)
    weights = np.random.default_rng(0).poisson(1, size=(2000, 400)).astype(float)
    prepared = Ranking(labels, scores)
    prepared.counts().aurc()  # imports scipy
    start = time.process_time()
    counts = prepared.counts(weights)
    for values in (
        counts.auroc(),
        counts.auprc(),
        counts.aurc(),
        counts.excess_aurc(),
        counts.recall_at_fpr(),
    ):
        assert np.isfinite(values).all()
    assert counts.accuracy_at([0.8, 0.9, 0.95]).shape == (2000, 3)
    assert time.process_time() - start < 1.0


WORKED = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1], [0.9, 0.8, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.3, 0.95]


def test_the_worked_values() -> None:
    """Ten examples with ties; AUGRC also by fd-shifts, the AUROC by DeLong's reference code."""
    assert ranking.auroc(*WORKED) == pytest.approx(0.708333, abs=1e-6)
    assert ranking.auprc(*WORKED) == pytest.approx(0.810714, abs=1e-6)
    assert ranking.aurc(*WORKED) == pytest.approx(0.239960, abs=1e-6)
    assert ranking.excess_aurc(*WORKED) == pytest.approx(0.127341, abs=1e-6)
    optimum = ranking.aurc(*WORKED) - ranking.excess_aurc(*WORKED)
    assert optimum == pytest.approx(0.112619, abs=1e-6)
    assert 0.4 + 0.6 * np.log(0.6) == pytest.approx(0.093505, abs=1e-6)  # what it tends to; ours is exact
    risks = [0, 0, 0.166667, 0.25, 0.2, 0.333333, 0.285714, 0.375, 0.388889, 0.4]
    assert ranking.risk_coverage_curve(*WORKED)[1] == pytest.approx(risks, abs=1e-6)
    assert ranking.augrc(*WORKED) == pytest.approx(0.15)
    assert ranking.augrc(WORKED[0], WORKED[0]) == pytest.approx(0.08)
    assert ranking.prr(*WORKED) == pytest.approx(0.556890, abs=1e-6)
    assert ranking.accuracy_at(*WORKED, 0.8) == pytest.approx(0.625)
    broken = [*WORKED[1][:2], 0.79, *WORKED[1][3:8], 0.29, WORKED[1][9]]
    assert ranking.prr(WORKED[0], broken) == pytest.approx(0.479564, abs=1e-6)


@given(tied_examples.filter(lambda found: 0 < sum(label for label, _ in found) < len(found)))
def test_augrc_is_the_area_of_errors_accepted(examples: list[tuple[bool, int]]) -> None:
    """By the trapezoid over distinct scores, as fd-shifts, and by its identity with the AUROC."""
    labels, scores = np.array([label for label, _ in examples]), np.array([score for _, score in examples])
    kept = [0, *((scores >= score).sum() for score in np.unique(scores)[::-1])]
    accepted = [0, *((~labels & (scores >= score)).sum() for score in np.unique(scores)[::-1])]
    area = np.trapezoid(np.array(accepted) / len(labels), np.array(kept) / len(labels))
    assert ranking.augrc(labels, scores) == pytest.approx(area)


def test_prr_of_the_best_the_random_and_one_class() -> None:
    labels = [True, True, False, True, False]
    assert ranking.prr(labels, labels) == 1
    assert ranking.prr(labels, [0] * 5) == pytest.approx(0)
    assert math.isnan(ranking.prr([True, True], [1, 2]))
    assert ranking.augrc([True, True], [1, 2]) == 0
