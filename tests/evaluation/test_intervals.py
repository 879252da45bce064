"""The bootstrap against a naive loop with the same resamples, scipy's and DeLong's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from probegrid.evaluation import intervals
from probegrid.evaluation.intervals import Metrics, bias_corrected, bootstrap, resampled
from probegrid.evaluation.ranking import Ranking

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]


def _ranking_metrics(labels: Labels | Sequence[bool], scores: Scores | Sequence[float]) -> Metrics:
    ranking = Ranking(labels, scores)

    def metrics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        counts = ranking.counts(weights)
        return {"accuracy": counts.accuracy(), "auroc": counts.auroc()}

    return metrics


def _simulated(
    generator: np.random.Generator, n_groups: int, *, clustered: bool
) -> tuple[Labels, Scores, list[str] | None]:
    """Labels and scores with an effect of the group on both, or without groups."""
    sizes = generator.integers(2, 11, size=n_groups) if clustered else np.ones(n_groups, dtype=int)
    group = np.repeat(np.arange(n_groups), sizes)
    effect = generator.normal(size=(2, n_groups))[:, group] * clustered
    labels = generator.random(len(group)) < 1 / (1 + np.exp(-0.6 - 1.2 * effect[0]))
    scores = 1.2 * labels + generator.normal(size=len(group)) + 0.7 * effect[1]
    return labels, scores, group.astype(str).tolist() if clustered else None


def test_the_interval_is_that_of_a_naive_loop() -> None:
    """The same groups, drawn one by one by the same generator, the examples copied out, t quantiles."""
    labels, scores, groups = _simulated(np.random.default_rng(0), 30, clustered=True)
    assert groups is not None
    names = sorted(set(groups))
    members = [np.flatnonzero(np.array(groups) == name) for name in names]
    generator = np.random.default_rng(7)
    accuracies, aurocs = [], []
    for _ in range(200):
        chosen = np.concatenate([members[index] for index in generator.integers(30, size=30)])
        accuracies.append(labels[chosen].mean())
        aurocs.append(roc_auc_score(labels[chosen], scores[chosen]))
    tail = stats.norm.cdf(math.sqrt(30 / 29) * stats.t.ppf(0.025, 29))

    estimates = bootstrap(_ranking_metrics(labels, scores), len(labels), groups, seed=7, resamples=200)
    for name, drawn in {"accuracy": accuracies, "auroc": aurocs}.items():
        expected = np.quantile(drawn, [tail, 1 - tail])
        assert [estimates[name].low, estimates[name].high] == pytest.approx(expected, abs=1e-12)
    assert estimates["accuracy"].value == labels.mean()


def test_the_seed_alone_decides_and_the_block_size_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, _ = _simulated(np.random.default_rng(1), 50, clustered=False)
    metrics = _ranking_metrics(labels, scores)
    first = bootstrap(metrics, 50, seed=3, resamples=300)
    assert bootstrap(metrics, 50, seed=4, resamples=300) != first
    monkeypatch.setattr(intervals, "_BLOCK_ELEMENTS", 50 * 7)
    assert bootstrap(metrics, 50, seed=3, resamples=300) == first


def test_groups_of_one_are_no_groups() -> None:
    labels, scores, _ = _simulated(np.random.default_rng(2), 40, clustered=False)
    metrics = _ranking_metrics(labels, scores)
    alone = [f"{index:02}" for index in range(40)]
    assert bootstrap(metrics, 40, alone, seed=0) == bootstrap(metrics, 40, seed=0)


def test_copies_in_a_group_do_not_narrow_the_interval() -> None:
    labels, scores, _ = _simulated(np.random.default_rng(3), 60, clustered=False)
    once = bootstrap(_ranking_metrics(labels, scores), 60, seed=0)
    copied = _ranking_metrics(np.tile(labels, 4), np.tile(scores, 4))
    groups = [f"{index:02}" for index in range(60)] * 4
    grouped, blind = bootstrap(copied, 240, groups, seed=0), bootstrap(copied, 240, seed=0)
    for name in ("accuracy", "auroc"):
        assert grouped[name].low == pytest.approx(once[name].low, abs=1e-12)
        assert grouped[name].high == pytest.approx(once[name].high, abs=1e-12)
        assert blind[name].high - blind[name].low < 0.6 * (once[name].high - once[name].low)


def test_resamples_with_one_class_are_left_out_and_counted() -> None:
    labels, scores = [True] + [False] * 9, list(np.linspace(1, 0, 10))
    estimates = bootstrap(_ranking_metrics(labels, scores), 10, seed=0, resamples=4000)
    assert estimates["accuracy"].n_resamples_valid == 4000
    assert estimates["auroc"].n_resamples_valid == pytest.approx(4000 * (1 - 0.9**10), abs=120)
    assert (estimates["auroc"].value, estimates["auroc"].low) == (1.0, 1.0)


def test_one_class_only_has_no_interval() -> None:
    estimate = bootstrap(_ranking_metrics([True] * 5, [1, 2, 3, 4, 5]), 5, seed=0)["auroc"]
    assert all(math.isnan(number) for number in (estimate.value, estimate.low, estimate.high))
    assert estimate.n_resamples_valid == 0


def test_one_group_only_has_a_value_and_no_interval() -> None:
    estimate = bootstrap(_ranking_metrics([True, False], [1, 0]), 2, ["a", "a"], seed=0)["auroc"]
    assert estimate.value == 1.0
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_unusable_arguments_are_refused() -> None:
    metrics = _ranking_metrics([True, False], [1, 0])
    with pytest.raises(ValueError, match="2 examples, 3 groups"):
        bootstrap(metrics, 2, ["a", "b", "c"], seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        bootstrap(metrics, 2, seed=0, resamples=0)


def _mann_whitney(labels: Labels, scores: Scores, axis: int) -> Scores:
    """The AUROC by scipy's ranks, many at once; sklearn has it for one at a time."""
    positives = labels.sum(axis=axis)
    ranks = (stats.rankdata(scores, axis=axis) * labels).sum(axis=axis)
    wins = ranks - positives * (positives + 1) / 2
    return np.asarray(wins / (positives * (labels.shape[axis] - positives)))


def test_the_interval_is_scipys_and_delongs() -> None:
    """400 independent examples, where the widening for few groups is slight: scipy's own percentile bootstrap at the
    widened level, and the normal interval with the standard error of DeLong et al. (1988)."""
    labels, scores, _ = _simulated(np.random.default_rng(12), 400, clustered=False)
    found = bootstrap(_ranking_metrics(labels, scores), 400, seed=0, resamples=10_000)
    level = 1 - 2 * stats.norm.cdf(math.sqrt(400 / 399) * stats.t.ppf(0.025, 399))
    for name, statistic in (("accuracy", lambda y, _, axis: np.mean(y, axis=axis)), ("auroc", _mann_whitney)):
        independent = stats.bootstrap(
            (labels, scores),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=4000,
            batch=400,
            confidence_level=level,
            method="percentile",
            rng=1,
        ).confidence_interval
        assert (found[name].low, found[name].high) == pytest.approx(tuple(independent), abs=0.004)
        assert found[name].value == pytest.approx(statistic(labels, scores, axis=-1), abs=1e-12)
    assert found["auroc"].value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    wins = (scores[labels][:, None] > scores[~labels]).astype(float)
    error = math.sqrt(
        wins.mean(axis=1).var(ddof=1) / labels.sum() + wins.mean(axis=0).var(ddof=1) / (~labels).sum()
    )
    ends = (wins.mean() - 1.96 * error, wins.mean() + 1.96 * error)
    assert (found["auroc"].low, found["auroc"].high) == pytest.approx(ends, abs=0.006)


def test_the_bias_corrected_interval_by_hand() -> None:
    """The mean of five numbers over all 3125 resamples there are; the percentile interval is (1.7, 6.4)."""
    values = np.array([1, 2, 2.5, 4, 9])
    drawn = np.round(np.stack(np.meshgrid(*[values] * 5), axis=-1).reshape(-1, 5).sum(axis=1) / 5, 12)
    left_out = (values.sum() - values) / 4
    found = bias_corrected(drawn, float(values.mean()), left_out)
    assert found.bias == pytest.approx(0.086738, abs=1e-6)
    assert found.acceleration == pytest.approx(0.081366, abs=1e-6)
    assert found.levels == pytest.approx((0.061934, 0.994495), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((1.9, 7.4))
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([1.7, 6.4])


def test_the_bias_corrected_interval_is_scipys() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    independent = stats.bootstrap((values,), np.mean, n_resamples=2000, method="BCa", rng=1)
    left_out = (values.sum() - values) / 39
    found = bias_corrected(independent.bootstrap_distribution, float(values.mean()), left_out)
    assert (found.low, found.high) == pytest.approx(tuple(independent.confidence_interval), abs=2e-3)
    aside = bias_corrected(np.ones(100), 2.0, left_out)
    assert math.isnan(aside.low) and math.isnan(aside.high)
    assert math.isnan(bias_corrected(np.empty(0), 2.0, left_out).low)


def test_the_variance_is_that_of_the_mean() -> None:
    """Of a mean the bootstrap's is known: the sample variance over n, and over groups that of their sums."""
    generator = np.random.default_rng(5)
    labels = generator.random(60) < 0.3
    groups = [f"{row // 3}" for row in range(60)]

    def mean(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"mean": weights @ labels / weights.sum(axis=1)}

    alone = resampled(mean, 60, seed=0, resamples=20_000).variance("mean")
    assert alone == pytest.approx(labels.var(ddof=1) / 60, rel=0.04)
    grouped = resampled(mean, 60, groups, seed=0, resamples=20_000).variance("mean")
    assert grouped == pytest.approx(labels.reshape(20, 3).mean(axis=1).var(ddof=1) / 20, rel=0.04)
    assert math.isnan(resampled(mean, 60, ["one"] * 60, seed=0).variance("mean"))
