"""The numbers of a trained probe against scikit-learn and against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from sklearn import metrics as reference

from probegrid.evaluation.calibration import ece
from probegrid.evaluation.classification import evaluate_classification, layer_aurocs
from probegrid.evaluation.metrics import metric_info
from probegrid.evaluation.ranking import recall_at_fpr
from probegrid.evaluation.shares import wilson
from probegrid.evaluation.summary import SAFE_SIDE, evaluate_answers

_GENERATOR = np.random.default_rng(0)
CONVERSATIONS = [f"c{i // 6}" for i in range(300)]
GROUPS = [f"g{i // 12}" for i in range(300)]
LABELS = _GENERATOR.random(300) < 0.4
SCORES = np.round(_GENERATOR.normal(size=300) + LABELS + np.arange(300) // 6 % 3, 1)
PROBABILITIES = expit(SCORES - 1)
THRESHOLD = 1.25


def within_conversation(labels: np.ndarray, scores: np.ndarray, conversations: list[str]) -> float:
    """Pairs of a true and a false statement of one conversation, one by one."""
    pairs = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i, j in itertools.product(np.flatnonzero(labels), np.flatnonzero(~labels))
        if conversations[i] == conversations[j]
    ]
    return float(np.mean(pairs))


def test_values_are_those_of_sklearn_and_of_plain_loops() -> None:
    summary = evaluate_classification(
        LABELS, SCORES, PROBABILITIES, GROUPS, CONVERSATIONS, THRESHOLD, seed=0, resamples=200
    )
    called = SCORES > THRESHOLD
    expected = {
        "auroc": reference.roc_auc_score(LABELS, SCORES),
        "auprc": reference.average_precision_score(LABELS, SCORES),
        "accuracy": reference.accuracy_score(LABELS, called),
        "balanced_accuracy": reference.balanced_accuracy_score(LABELS, called),
        "mcc": reference.matthews_corrcoef(LABELS, called),
        "majority_accuracy": (~LABELS).mean(),
        "precision": reference.precision_score(LABELS, called),
        "recall": reference.recall_score(LABELS, called),
        "f1": reference.f1_score(LABELS, called),
        "recall_at_1_fpr": recall_at_fpr(LABELS, SCORES, 0.01),
        "within_conversation_auroc": within_conversation(LABELS, SCORES, CONVERSATIONS),
        "ece": ece(LABELS, PROBABILITIES),
        "brier": reference.brier_score_loss(LABELS, PROBABILITIES),
    }
    assert list(summary.estimates) == list(expected)
    for name, value in expected.items():
        estimate = summary.estimates[name]
        assert estimate.value == pytest.approx(value, abs=1e-12), name
        assert estimate.low <= estimate.value <= estimate.high, name
        assert metric_info(name).unit == "1"
    assert expected["within_conversation_auroc"] > expected["auroc"] + 0.02
    assert (summary.n, summary.n_correct) == (300, int(LABELS.sum()))
    assert list(summary.notes) == ["recall_at_1_fpr", "ece"]


def test_a_conversation_drawn_twice_counts_twice() -> None:
    """The same numbers as on a table that holds every example of a group as often as the group is drawn."""
    from probegrid.evaluation.classification import classification_metrics

    times = _GENERATOR.integers(0, 3, size=25)
    weights = np.repeat(times, 12).astype(np.float64)
    found = classification_metrics(LABELS, SCORES, PROBABILITIES, CONVERSATIONS, THRESHOLD)(weights[None])
    rows = [(copy, i) for i in range(300) for copy in range(times[i // 12])]
    index = [i for _, i in rows]
    named = [f"{CONVERSATIONS[i]}/{copy}" for copy, i in rows]
    expected = within_conversation(LABELS[index], SCORES[index], named)
    assert found["within_conversation_auroc"][0] == pytest.approx(expected)
    assert found["f1"][0] == pytest.approx(reference.f1_score(LABELS[index], SCORES[index] > THRESHOLD))


def test_the_worked_values() -> None:
    """Ten examples called true above one half: two of three true ones found, two of three calls right."""
    labels, scores = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1], [0.9, 0.8, 0.8, 0.7, 0.6, 0.55, 0.4, 0.3, 0.3, 0.95]
    alone = [str(row) for row in range(10)]
    found = evaluate_classification(labels, scores, scores, alone, alone, 0.5, seed=0, resamples=50).metrics
    assert found["balanced_accuracy"] == pytest.approx(0.666667, abs=1e-6)
    assert found["mcc"] == pytest.approx(0.356348, abs=1e-6)


def test_balanced_accuracy_reaches_as_far_as_the_intervals_of_both_shares() -> None:
    """20 of 20 true ones called true and 76 of 80 false ones called false: scipy's Wilson's, as distances squared."""
    labels = np.arange(100) < 20
    scores = labels + 2.0 * (np.arange(100) >= 96)
    alone = [f"{row:03}" for row in range(100)]
    found = evaluate_classification(labels, scores, labels, alone, alone, 0.5, seed=0, resamples=20)
    one = stats.binomtest(20, 20).proportion_ci(method="wilson")
    other = stats.binomtest(76, 80).proportion_ci(method="wilson")
    balanced = found.estimates["balanced_accuracy"]
    assert balanced.low == pytest.approx(0.975 - math.hypot(1 - one.low, 0.95 - other.low) / 2)
    assert balanced.high >= 0.975 + (other.high - 0.95) / 2


def test_few_calls_leave_an_f1_wide() -> None:
    """5 of 50 true, one false one called true: an F1 of 0 that stands on three examples and not on eighteen."""
    labels, scores = np.arange(50) < 5, np.arange(50.0)
    alone = [f"{row:02}" for row in range(50)]
    found = evaluate_classification(labels, scores, labels, alone, alone, 48.5, seed=0, resamples=50)
    assert found.metrics["f1"] == 0
    assert found.metrics["f1_ci_high"] == pytest.approx(wilson(0, 3)[1])
    assert found.metrics["mcc_ci_high"] > 0.3


def test_wide_intervals_say_so() -> None:
    """Up to ten of a class, and a threshold for 1% that few negatives show; ten groups are worth ten of them."""
    labels = np.arange(300) < 8
    generator = np.random.default_rng(1)
    scores, alone = generator.normal(size=300) + labels, [f"{row:03}" for row in range(300)]
    found = evaluate_classification(
        labels, scores, expit(scores), alone, alone, 0.5, seed=0, resamples=30, of_answers=True
    )
    of = "no more than 10 examples of one class"
    few = {name: note for name, note in found.notes.items() if note == f"{of}: {SAFE_SIDE}"}
    assert {"auprc", "aurc", "augrc", "prr", "accuracy_at_80", "risk_at_80", "brier", "f1", "mcc"} <= {*few}
    assert not {"accuracy", "auroc", "precision", "recall"} & {*found.notes}
    assert found.notes["ece"] == f"how the gaps lie is not known: {SAFE_SIDE}"
    groups = [f"g{row % 20:02}" for row in range(300)]
    grouped = evaluate_classification(
        labels, scores, expit(scores), groups, groups, 0.5, seed=0, resamples=30
    ).notes["recall_at_1_fpr"]
    assert grouped.startswith("292 false examples, worth 19 that stand alone, do not show")


@pytest.mark.parametrize(
    ("negatives", "note"),
    [(367, "nothing bounds it from below"), (400, SAFE_SIDE), (2000, None)],
)
def test_recall_at_1_fpr_says_what_its_interval_is(negatives: int, note: str | None) -> None:
    labels = np.arange(negatives + 50) < 50
    scores = np.random.default_rng(2).normal(size=len(labels)) + labels
    alone = [f"{row:04}" for row in range(len(labels))]
    found = evaluate_classification(labels, scores, expit(scores), alone, alone, 0.5, seed=0, resamples=20)
    said = found.notes.get("recall_at_1_fpr")
    assert said is None if note is None else note in str(said)


def test_rejecting_answers_is_that_of_any_other_score() -> None:
    """A probe of own answers and a score of them stand in one table: numbers and intervals of one name are one."""
    alone = [f"{row:03}" for row in range(300)]  # in the order of the rows: the same resamples
    probe = evaluate_classification(
        LABELS, SCORES, PROBABILITIES, alone, alone, THRESHOLD, seed=3, resamples=100, of_answers=True
    )
    score = evaluate_answers(LABELS, SCORES, seed=3, resamples=100)
    shared = [name for name in score.metrics if name in probe.metrics and "accuracy_ci" not in name]
    assert {"aurc", "eaurc", "augrc", "prr", "risk_at_90_ci_low", "coverage_at_risk_10"} <= {*shared}
    assert {"auroc", "auprc_ci_low", "accuracy_at_80_ci_high"} <= {*shared}
    for name in shared:
        if name != "accuracy":  # of the calls here, of the answers there
            assert probe.metrics[name] == pytest.approx(score.metrics[name], abs=1e-12), name
    statements = evaluate_classification(
        LABELS, SCORES, PROBABILITIES, alone, alone, THRESHOLD, seed=3, resamples=10
    )
    assert not {"aurc", "risk_at_80", "coverage_at_risk_10"} & {*statements.metrics}


def test_what_is_undefined_is_nan_with_its_reason() -> None:
    alone = [f"c{i}" for i in range(300)]
    summary = evaluate_classification(LABELS, SCORES, PROBABILITIES, alone, alone, 1e9, seed=0, resamples=50)
    assert math.isnan(summary.metrics["within_conversation_auroc"])
    assert "no conversation" in summary.notes["within_conversation_auroc"]
    assert math.isnan(summary.metrics["precision"])
    assert summary.notes["precision"].startswith("no test example is called true")
    one_class = evaluate_classification(
        np.ones(9), SCORES[:9], PROBABILITIES[:9], alone[:9], alone[:9], 0, seed=0, resamples=50
    )
    assert one_class.notes["auroc"] == "all 9 test examples are true: auroc needs both"
    one_group = evaluate_classification(
        LABELS, SCORES, PROBABILITIES, ["g"] * 300, CONVERSATIONS, 0, seed=0, resamples=50
    )
    assert one_group.notes["auroc"] == "no interval: it takes at least two groups"


def test_a_conversation_in_two_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="a conversation lies in two groups"):
        evaluate_classification(
            LABELS, SCORES, PROBABILITIES, [f"g{i}" for i in range(300)], CONVERSATIONS, 0, seed=0
        )


def test_layers_share_their_resamples() -> None:
    scores = np.stack([SCORES, -SCORES, SCORES], axis=1)
    first, reverse, same = layer_aurocs(LABELS, scores, GROUPS, seed=0, resamples=200)
    summary = evaluate_classification(
        LABELS, SCORES, PROBABILITIES, GROUPS, CONVERSATIONS, 0, seed=0, resamples=200
    )
    assert first == same == summary.estimates["auroc"]
    assert reverse.value == pytest.approx(1 - first.value)
