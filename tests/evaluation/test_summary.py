"""The summary: names, order, agreement with the metrics themselves, and reasons for what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probegrid.evaluation import calibration, ranking, smooth_calibration
from probegrid.evaluation.metrics import metric_info
from probegrid.evaluation.summary import SAFE_SIDE, SMALL_SAMPLES, evaluate_answers, mean_estimate

_GENERATOR = np.random.default_rng(0)
PROBABILITIES = _GENERATOR.random(200)
LABELS = _GENERATOR.random(200) < PROBABILITIES


def test_names_order_and_values() -> None:
    summary = evaluate_answers(LABELS, PROBABILITIES, seed=1, probability=True)
    assert list(summary.estimates) == [
        *(
            "accuracy",
            "auroc",
            "auprc",
            "aurc",
            "eaurc",
            "accuracy_at_80",
            "accuracy_at_90",
            "accuracy_at_95",
        ),
        *("augrc", "prr", "ece", "brier", "risk_at_80", "risk_at_90", "risk_at_95"),
    ]
    metrics = summary.metrics
    assert list(metrics)[:4] == ["accuracy", "accuracy_ci_low", "accuracy_ci_high", "auroc"]
    assert list(metrics)[-2:] == ["n", "n_correct"]
    assert (metrics["n"], metrics["n_correct"]) == (200, LABELS.sum())
    assert metrics["accuracy"] == LABELS.mean()
    assert metrics["auroc"] == ranking.auroc(LABELS, PROBABILITIES)
    assert metrics["eaurc"] == ranking.excess_aurc(LABELS, PROBABILITIES)
    assert metrics["accuracy_at_90"] == ranking.accuracy_at(LABELS, PROBABILITIES, 0.9)
    assert metrics["ece"] == pytest.approx(calibration.ece(LABELS, PROBABILITIES), abs=1e-15)
    assert metrics["brier"] == pytest.approx(calibration.brier(LABELS, PROBABILITIES), abs=1e-15)
    assert metrics["smooth_ece"] == smooth_calibration.smooth_ece(LABELS, PROBABILITIES)
    assert metrics["ce2_debiased"] == calibration.ce2_debiased(LABELS, PROBABILITIES)
    assert metrics["risk_at_80"] == 1 - metrics["accuracy_at_80"]
    assert metrics["risk_at_80_ci_low"] == 1 - metrics["accuracy_at_80_ci_high"]
    for name in summary.estimates:
        assert metrics[f"{name}_ci_low"] <= metrics[name] <= metrics[f"{name}_ci_high"], name
        assert metrics[f"{name}_ci_low"] < metrics[f"{name}_ci_high"], name
    assert summary.notes == {"ece": f"how the gaps lie is not known: {SAFE_SIDE}"}


def test_an_almost_perfect_ranking_says_that_its_intervals_are_wide() -> None:
    """Twenty wrong of a hundred, none out of place and then five of them: the first says so, not of accuracy."""
    labels, scores = np.arange(100) >= 20, np.arange(100.0)
    perfect = evaluate_answers(labels, scores, seed=0, resamples=30).notes
    assert {*perfect.values()} == {f"an almost perfect ranking: {SAFE_SIDE}"}
    assert {"auprc", "aurc", "augrc", "accuracy_at_80", "prr"} <= {*perfect}
    assert not {"accuracy", "auroc"} & {*perfect}
    assert evaluate_answers(labels, np.where(scores < 5, 100, scores), seed=0, resamples=30).notes == {}


def test_every_name_is_in_the_table() -> None:
    found = evaluate_answers(
        LABELS, PROBABILITIES, seed=1, resamples=10, probability=True, grades={"f1": PROBABILITIES}
    )
    assert all(metric_info(name).description for name in found.metrics)


def test_grades_have_a_rejection_ratio_with_an_interval() -> None:
    """1 for what ranks them best; that of verdicts where grades are verdicts; the reason where all are one."""
    grades = {"best": PROBABILITIES, "verdict": LABELS, "f1": np.full(200, 0.5)}
    found = evaluate_answers(LABELS, PROBABILITIES, seed=1, resamples=100, grades=grades)
    assert found.metrics["prr_best"] == pytest.approx(1)
    for end in ("", "_ci_low", "_ci_high"):
        assert found.metrics[f"prr_verdict{end}"] == pytest.approx(found.metrics[f"prr{end}"])
    assert math.isnan(found.metrics["prr_f1"])
    assert found.notes == {"prr_f1": "all 200 answers have the same f1"}


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    summary = evaluate_answers(LABELS, np.log(PROBABILITIES), seed=1, resamples=10)
    assert not {"ece", "brier"} & set(summary.metrics)


def test_other_scores_have_their_auroc_as_alone() -> None:
    noise = np.random.default_rng(1).random(200)
    others = {"same": PROBABILITIES, "squared": PROBABILITIES**2, "noise": noise}
    summary = evaluate_answers(LABELS, PROBABILITIES, seed=1, others=others)
    alone = evaluate_answers(LABELS, noise, seed=1)
    estimates = summary.estimates
    assert estimates["same_auroc"] == estimates["squared_auroc"]
    for found, wanted in (("same_auroc", estimates["auroc"]), ("noise_auroc", alone.estimates["auroc"])):
        ends = (estimates[found].value, estimates[found].low, estimates[found].high)
        assert ends == pytest.approx((wanted.value, wanted.low, wanted.high), abs=1e-12)
    assert estimates["auroc"] == evaluate_answers(LABELS, PROBABILITIES, seed=1).estimates["auroc"]
    one_class = evaluate_answers([True] * 9, range(9), seed=1, others={"noise": noise[:9]})
    assert math.isnan(one_class.metrics["noise_auroc"])
    assert one_class.notes["noise_auroc"] == "all 9 answers are correct: noise_auroc needs both classes"


def test_groups_widen_the_interval() -> None:
    copied_labels, copied_scores = np.tile(LABELS, 3), np.tile(PROBABILITIES, 3)
    groups = [f"conversation {index}" for index in range(200)] * 3
    grouped = evaluate_answers(copied_labels, copied_scores, groups, seed=1).estimates["auroc"]
    blind = evaluate_answers(copied_labels, copied_scores, seed=1).estimates["auroc"]
    assert grouped.high - grouped.low > 1.5 * (blind.high - blind.low)


@pytest.mark.parametrize(("label", "word"), [(True, "correct"), (False, "wrong")])
def test_one_class_is_nan_with_the_reason(label: bool, word: str) -> None:
    summary = evaluate_answers([label] * 12, np.arange(12), seed=0, resamples=50)
    for name in ("auroc", "auprc", "eaurc"):
        assert math.isnan(summary.metrics[name])
        assert math.isnan(summary.metrics[f"{name}_ci_low"])
        assert summary.notes[name] == f"all 12 answers are {word}: {name.upper()} needs both classes"
    assert summary.metrics["accuracy"] == summary.metrics["accuracy_at_80"] == float(label)
    assert 0 < metrics_width(summary.metrics, "accuracy") < 0.3
    assert "0 of the 12 examples in one class" in summary.notes["aurc"]
    assert "accuracy" not in summary.notes


def metrics_width(metrics: dict[str, float], name: str) -> float:
    return metrics[f"{name}_ci_high"] - metrics[f"{name}_ci_low"]


def test_one_group_and_no_answers_have_their_reasons() -> None:
    one_group = evaluate_answers([True, False], [1, 0], ["a", "a"], seed=0)
    assert "it takes at least two groups" in one_group.notes["accuracy"]
    nothing = evaluate_answers([], [], seed=0)
    assert math.isnan(nothing.metrics["accuracy"])
    assert nothing.metrics["n"] == 0
    assert nothing.notes["auroc"] == "there are no answers"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused_with_its_index(score: float) -> None:
    with pytest.raises(ValueError, match=rf"scores must be finite, got {score} at index 2"):
        evaluate_answers([True, False, True], [0.1, 0.2, score], seed=0)


def test_a_score_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probabilities must lie in \[0, 1\], got 1.5 at index 1"):
        evaluate_answers([True, False], [0.5, 1.5], seed=0, probability=True)


def test_a_mean_of_shares_has_an_interval_inside_them() -> None:
    """Twelve F1 of which one is not 1: the interval does not pass 1, and is wider where answers share a group."""
    values = [1.0] * 11 + [0.4]
    alone = mean_estimate(values, is_share=True)
    assert alone.value == pytest.approx(0.95)
    assert 0.6 < alone.low < 0.95 < alone.high < 1
    grouped = mean_estimate(np.repeat(values, 3), [f"{row // 3}" for row in range(36)], is_share=True)
    blind = mean_estimate(np.repeat(values, 3), is_share=True)
    assert grouped.high - grouped.low > 1.3 * (blind.high - blind.low)
    assert math.isnan(mean_estimate([]).value)


def test_scores_that_are_all_equal_rank_nothing_and_it_is_said() -> None:
    labels = [True, False] * 20
    ranked = [number / 40 for number in range(40)]
    notes = evaluate_answers(labels, [0.5] * 40, seed=0, others={"same": [1.0] * 40, "other": ranked}).notes
    alike = "all 40 scores are equal, so that nothing is ranked"
    assert notes["auroc"] == notes["same_auroc"] == alike
    assert "other_auroc" not in notes
    few = evaluate_answers(labels[:6], [0.5] * 6, seed=0).notes["auroc"]
    assert few.endswith("; all 6 scores are equal, so that nothing is ranked")
    assert SMALL_SAMPLES in few
    assert "equal" not in evaluate_answers([True] * 6, [0.5] * 6, seed=0).notes["auroc"]


def test_no_end_of_a_mean_is_below_what_can_be() -> None:
    spread = [0.1, 0.1, 9.0]
    assert mean_estimate(spread).low < 0
    assert mean_estimate(spread, least=0.0).low == 0
    assert mean_estimate(spread, least=0.0).high == mean_estimate(spread).high
