"""All numbers of one cell: labels and scores in, every metric with its interval out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.calibration import Calibration
from probegrid.evaluation.checks import FloatArray, as_labels
from probegrid.evaluation.intervals import Estimate, Metrics, bootstrap
from probegrid.evaluation.ranking import Ranking

_COVERAGES_PERCENT = (80, 90, 95)
_NEED_BOTH_CLASSES = ("auroc", "auprc", "eaurc")  # and every other score's <name>_auroc


@dataclass(frozen=True)
class Summary:
    """What a set of labels and scores amounts to.

    Attributes:
        estimates: by metric name, in order of report; names as in `probegrid.evaluation.metrics.METRICS`.
        n: number of examples.
        n_correct: number of examples whose label is true.
        notes: by metric name, why its value or interval is `nan`, or what to know of the interval.
    """

    estimates: Mapping[str, Estimate]
    n: int
    n_correct: int
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The flat form to record: `<metric>`, `<metric>_ci_low` and `<metric>_ci_high`; `n`, `n_correct`."""
        flat: dict[str, float] = {}
        for name, estimate in self.estimates.items():
            flat |= {name: estimate.value, f"{name}_ci_low": estimate.low, f"{name}_ci_high": estimate.high}
        return flat | {"n": self.n, "n_correct": self.n_correct}


def answer_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    probability: bool = False,
    others: Mapping[str, ArrayLike] | None = None,
) -> Metrics:
    """Return the function from weightings of the examples to every metric, as `bootstrap` takes it.

    Args:
        labels: `bool[n]`, true where the answer (or statement) is correct.
        scores: `float[n]`, finite; larger when correct is more likely.
        probability: whether the scores are probabilities of being correct; adds `ece` and `brier`.
        others: other scores of the same examples by name, `float[n]` each; each adds `<name>_auroc`.

    Raises:
        ValueError: shapes differ, a label is not true or false, a score is not finite (the message names the
            index), or a probability lies outside [0, 1].
    """
    ranking = Ranking(labels, scores)
    calibration = Calibration(labels, scores) if probability else None
    beside = {f"{name}_auroc": Ranking(labels, values) for name, values in (others or {}).items()}

    def metrics(weights: FloatArray) -> dict[str, FloatArray]:
        counts = ranking.counts(weights)
        kept = counts.accuracy_at([percent / 100 for percent in _COVERAGES_PERCENT])
        values = {
            "accuracy": counts.accuracy(),
            "auroc": counts.auroc(),
            "auprc": counts.auprc(),
            "aurc": counts.aurc(),
            "eaurc": counts.excess_aurc(),
        }
        for column, percent in enumerate(_COVERAGES_PERCENT):
            values[f"accuracy_at_{percent}"] = kept[:, column]
        if calibration is not None:
            values |= {"ece": calibration.ece(weights), "brier": calibration.brier(weights)}
        return values | {name: other.counts(weights).auroc() for name, other in beside.items()}

    return metrics


def evaluate_answers(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    seed: int,
    resamples: int = 2000,
    probability: bool = False,
    others: Mapping[str, ArrayLike] | None = None,
) -> Summary:
    """Compute every metric with its 95% bootstrap interval.

    Args:
        labels: `bool[n]`, true where the answer (or statement) is correct.
        scores: `float[n]`, finite; larger when correct is more likely.
        groups: group of each example; whole groups are resampled. `None`: every example stands alone.
        seed: of the resampling alone.
        resamples: number of bootstrap resamples.
        probability: whether the scores are probabilities of being correct; adds `ece` and `brier`.
        others: other scores of the same examples by name, `float[n]` each; each adds `<name>_auroc`, on the same
            resamples.

    Raises:
        ValueError: as `answer_metrics` and `bootstrap`.
    """
    truth = as_labels(labels)
    n, n_correct = len(truth), int(np.count_nonzero(truth))
    metrics = answer_metrics(truth, scores, probability=probability, others=others)
    estimates = bootstrap(metrics, n, groups, seed=seed, resamples=resamples, reflected=("ece",))
    notes = {
        name: note
        for name, estimate in estimates.items()
        if (note := _note(name, estimate, n, n_correct, resamples)) is not None
    }
    return Summary(estimates=estimates, n=n, n_correct=n_correct, notes=notes)


def _note(name: str, estimate: Estimate, n: int, n_correct: int, resamples: int) -> str | None:
    needs_both = name.endswith(_NEED_BOTH_CLASSES)
    title = name.upper() if name in _NEED_BOTH_CLASSES else name
    if n == 0:
        return "there are no answers"
    if needs_both and n_correct in (0, n):
        return f"all {n} answers are {'correct' if n_correct else 'wrong'}: {title} needs both classes"
    if np.isnan(estimate.low):
        return f"no interval for {title}: a bootstrap needs at least two groups"
    if estimate.low == estimate.high:
        return f"every resample gives the same {title}: its interval has no width and hides the uncertainty"
    if estimate.n_resamples_valid < resamples:
        return f"{resamples - estimate.n_resamples_valid} of {resamples} resamples hold one class: left out"
    return None
