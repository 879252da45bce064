"""Intervals against a naive loop with the same resamples, and simulated coverage and false alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from probegrid.evaluation import intervals
from probegrid.evaluation.calibration import Calibration
from probegrid.evaluation.intervals import Difference, Metrics, bootstrap, holm, paired_difference
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_groups", "clustered", "data_sets"),
    [(100, False, 3000), (400, False, 2000), (20, True, 3000), (60, True, 2000)],
)
def test_95_percent_intervals_hold_the_truth_93_to_97_percent_of_the_time(
    n_groups: int, clustered: bool, data_sets: int
) -> None:
    """Of 2000 data sets: at a true coverage of 95% the share falls outside with probability 4e-5, at 92% it is let
    pass with probability 0.05."""
    generator = np.random.default_rng(n_groups)
    labels, scores, _ = _simulated(generator, 400_000 // (6 if clustered else 1), clustered=clustered)
    truth = {"accuracy": labels.mean(), "auroc": float(roc_auc_score(labels, scores))}
    held = dict.fromkeys(truth, 0)
    for seed in range(data_sets):
        labels, scores, groups = _simulated(generator, n_groups, clustered=clustered)
        estimates = bootstrap(_ranking_metrics(labels, scores), len(labels), groups, seed=seed, resamples=500)
        for name, value in truth.items():
            held[name] += estimates[name].low <= value <= estimates[name].high
    shares = {name: count / data_sets for name, count in held.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


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


def test_the_reflected_interval_of_a_calibrated_ece_reaches_down_to_zero() -> None:
    """The percentile interval never does: resampling adds to a sum of absolute values."""
    generator = np.random.default_rng(5)
    reached = {"plain": 0, "reflected": 0}
    for seed in range(40):
        probabilities = generator.random(400)
        calibration = Calibration(generator.random(400) < probabilities, probabilities)

        def metrics(
            weights: NDArray[np.float64], calibration: Calibration = calibration
        ) -> dict[str, NDArray[np.float64]]:
            return {"plain": calibration.ece(weights), "reflected": calibration.ece(weights)}

        estimates = bootstrap(metrics, 400, seed=seed, resamples=300, reflected=["reflected"])
        assert 0 <= estimates["reflected"].low <= estimates["reflected"].value <= estimates["reflected"].high
        for name in reached:
            reached[name] += estimates[name].low < 0.02
    assert reached["plain"] == 0
    assert reached["reflected"] >= 30


def test_a_scoring_does_not_differ_from_itself() -> None:
    labels, scores, groups = _simulated(np.random.default_rng(6), 40, clustered=True)
    metrics = _ranking_metrics(labels, scores)
    for difference in paired_difference(metrics, metrics, len(labels), groups, seed=0).values():
        assert (difference.value, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)


def test_pairing_finds_what_two_intervals_cannot() -> None:
    """A small gain on scores that share most of their noise: the intervals overlap, the gain is clear."""
    generator = np.random.default_rng(8)
    labels = generator.random(400) < 0.5
    scores = labels + generator.normal(size=400)
    better = scores + 0.25 * labels + 0.05 * generator.normal(size=400)
    first, second = _ranking_metrics(labels, better), _ranking_metrics(labels, scores)
    difference = paired_difference(first, second, 400, seed=0)["auroc"]
    assert bootstrap(first, 400, seed=0)["auroc"].low < bootstrap(second, 400, seed=0)["auroc"].high
    assert difference.low > 0
    assert difference.p_value < 0.001
    mirrored = paired_difference(second, first, 400, seed=0)["auroc"]
    assert (mirrored.value, mirrored.low) == pytest.approx((-difference.value, -difference.high))
    assert mirrored.p_value == difference.p_value


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_p_values_are_uniform_when_there_is_no_difference(clustered: bool) -> None:
    """1000 comparisons of two scorings equally good by construction: as many p-values below each level as there should
    be, within four standard errors, and for AUROC, whose differences are no whole numbers, Kolmogorov and Smirnov."""
    generator = np.random.default_rng(9)
    found: dict[str, list[Difference]] = {"auroc": [], "accuracy": []}
    for seed in range(1000):
        labels, shared, groups = _simulated(generator, 60 if clustered else 250, clustered=clustered)
        first, second = (shared + generator.normal(size=len(labels)) for _ in range(2))
        metrics = [_called_metrics(labels, scores) for scores in (first, second)]
        differences = paired_difference(*metrics, len(labels), groups, seed=seed, resamples=500)
        for name, all_of_name in found.items():
            all_of_name.append(differences[name])
    for name, differences_of in found.items():
        p_values = np.array([one.p_value for one in differences_of])
        for level in (0.01, 0.05, 0.1, 0.5, 0.9):
            error = math.sqrt(level * (1 - level) / len(p_values))
            assert abs(np.mean(p_values < level) - level) < 4 * error, (name, level)
        excluded = np.array([not one.low <= 0 <= one.high for one in differences_of])
        assert np.mean((p_values < 0.05) == excluded) > 0.98
    assert stats.kstest([one.p_value for one in found["auroc"]], "uniform").pvalue > 0.01


def _called_metrics(labels: Labels, scores: Scores) -> Metrics:
    """AUROC, and the accuracy of calling true what scores above 0.6."""
    ranking, right = Ranking(labels, scores), (scores > 0.6) == labels

    def metrics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {"auroc": ranking.counts(weights).auroc(), "accuracy": weights @ right / weights.sum(axis=1)}

    return metrics


def test_a_p_value_goes_beyond_what_resamples_can_count() -> None:
    """Against the normal test of a paired difference in accuracy: eight standard errors, of which 2000 resamples see
    nothing; its logarithm agrees."""
    generator = np.random.default_rng(10)
    labels = np.ones(400, dtype=bool)
    right, other = generator.random(400) < 0.8, generator.random(400) < 0.5

    def accuracy(correct: Labels) -> Metrics:
        return lambda weights: {"accuracy": weights @ correct / weights.sum(axis=1)}

    difference = paired_difference(accuracy(right), accuracy(other), len(labels), seed=0)["accuracy"]
    gaps = right.astype(float) - other
    z = gaps.mean() / (gaps.std(ddof=1) / math.sqrt(400))
    assert difference.p_value < 1e-6
    assert math.log(difference.p_value) == pytest.approx(math.log(2 * stats.norm.sf(z)), rel=0.15)


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
