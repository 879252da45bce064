"""All numbers of one cell: labels and scores in, every metric with its interval out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.average_precision import auprc_ends
from probegrid.evaluation.calibration import Calibration, ce2_debiased
from probegrid.evaluation.checks import FloatArray, as_labels, as_scores
from probegrid.evaluation.delong import Placements
from probegrid.evaluation.intervals import Estimate, Metrics, Resampled, resampled
from probegrid.evaluation.miscalibration import Miscalibration, miscalibration
from probegrid.evaluation.ranking import Ranking
from probegrid.evaluation.selective import (
    RISK,
    coverage_at_risk,
    graded_prr,
    risk_estimates,
    selective_ends,
    selective_metrics,
)
from probegrid.evaluation.shares import (
    Ends,
    Standing,
    area_ends,
    is_nearly_perfect,
    mean_ends,
    mean_of_shares_ends,
    mean_variance,
    ranked_ends,
    share_ends,
)
from probegrid.evaluation.smooth_calibration import smooth_ece

SMALL_SAMPLES = "an interval for small samples, which need not hold the truth 95% of the time"
"""Behind what is few, in the note of a number that few examples or clusters stand behind."""
SAFE_SIDE = "an interval on the safe side, which may hold the truth more than 95% of the time"
"""Behind why, in the note of a number whose interval is wider than most data sets need."""
NO_ANSWERS, NO_SCORES = "there are no answers", "no answer has a score"
NO_OWN_SCORES = "no answer has the probe's own score, and this is of the answers that have it"
OF_SOME = "answers that have such a score"
"""Of what a number is, in its note, that is not of all answers."""
NO_INTERVAL = "no interval: it takes at least two groups"
"""Why a number has none, in its note."""
_OF_REJECTION = ("aurc", "eaurc", "augrc", "accuracy_at", "risk_at", "prr")  # prefixes
_OF_CALLS = ("balanced_accuracy", "mcc", "f1")
_FEW_FOR_MOST = 10  # of a class, up to which what follows is wide
_MANY_FOR_GAPS = 3000  # examples (or clusters), from which on the ECE's interval is not
_NEED_BOTH_CLASSES = ("auroc", "auprc", "eaurc", "prr")  # and every other score's <name>_auroc


@dataclass(frozen=True)
class Summary:
    """What a set of labels and scores amounts to.

    Attributes:
        estimates: by metric name, in order of report; names as in `probegrid.evaluation.metrics.METRICS`.
        n: number of examples.
        n_correct: number of examples whose label is true.
        notes: by metric name, why its value or interval is `nan`, or what to know of the interval.
        plain: numbers without an interval, by metric name: what noise alone would show, p-values.
    """

    estimates: Mapping[str, Estimate]
    n: int
    n_correct: int
    notes: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """The flat form to record: `<metric>`, `<metric>_ci_low` and `<metric>_ci_high`; `n`, `n_correct`."""
        return flat(self.estimates) | dict(self.plain) | {"n": self.n, "n_correct": self.n_correct}


def flat(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Estimates as numbers: `<metric>`, `<metric>_ci_low` and `<metric>_ci_high` of each."""
    numbers: dict[str, float] = {}
    for name, estimate in estimates.items():
        numbers |= {name: estimate.value, f"{name}_ci_low": estimate.low, f"{name}_ci_high": estimate.high}
    return numbers


def answer_metrics(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    probability: bool = False,
    others: Mapping[str, ArrayLike] | None = None,
    grades: Mapping[str, ArrayLike] | None = None,
) -> Metrics:
    """Return the function from weightings of the examples to every metric, as `resampled` takes it.

    Args:
        labels: `bool[n]`, true where the answer (or statement) is correct.
        scores: `float[n]`, finite; larger when correct is more likely.
        probability: whether the scores are probabilities of being correct; adds `ece` and `brier`.
        others: other scores of the same examples by name, `float[n]` each; each adds `<name>_auroc`.
        grades: how good each answer is by name, `float[n]` in [0, 1] each; each adds `prr_<name>`.

    Raises:
        ValueError: shapes differ, a label is not true or false, a score is not finite (the message names the
            index), or a probability or a grade lies outside [0, 1].
    """
    ranking = Ranking(labels, scores)
    calibration = Calibration(labels, scores) if probability else None
    beside = {f"{name}_auroc": Ranking(labels, values) for name, values in (others or {}).items()}
    graded = {f"prr_{name}": graded_prr(values, scores) for name, values in (grades or {}).items()}

    def metrics(weights: FloatArray) -> dict[str, FloatArray]:
        counts = ranking.counts(weights)
        values = {
            "accuracy": counts.accuracy(),
            "auroc": counts.auroc(),
            "auprc": counts.auprc(),
            **selective_metrics(counts),
            **{name: prr(weights) for name, prr in graded.items()},
        }
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
    grades: Mapping[str, ArrayLike] | None = None,
) -> Summary:
    """Compute every metric with its 95% interval; `shares` and `miscalibration` say which.

    Args:
        labels: `bool[n]`, true where the answer (or statement) is correct.
        scores: `float[n]`, finite; larger when correct is more likely.
        groups: group of each example; whole groups are resampled. `None`: every example stands alone.
        seed: of the resampling alone.
        resamples: number of bootstrap resamples.
        probability: whether the scores are probabilities of being correct; adds `ece` and `brier`.
        others: other scores of the same examples by name, `float[n]` each; each adds `<name>_auroc`, on the same
            resamples.
        grades: how good each answer is by name, `float[n]` in [0, 1] each; each adds `prr_<name>`.

    Raises:
        ValueError: as `answer_metrics` and `resampled`.
    """
    truth = as_labels(labels)
    standing = Standing.of(truth, groups) if len(truth) else Standing(0, 0, 0, 0, 1.0)
    is_closed = not standing.is_clustered and 0 < standing.positives < standing.n
    drawn_others = None if is_closed else others  # of examples that stand alone no resample is looked at
    metrics = answer_metrics(truth, scores, probability=probability, others=drawn_others, grades=grades)
    drawn = resampled(metrics, len(truth), groups, seed=seed, resamples=resamples)
    of_grades = {f"prr_{name}": _above_mean(values, groups) for name, values in (grades or {}).items()}
    of_areas = {"auroc": scores} | {f"{name}_auroc": values for name, values in (others or {}).items()}

    def ends(name: str) -> Ends:
        if name in of_areas:
            return area_interval(truth, of_areas[name], drawn, name, standing)
        if name == "auprc":
            return auprc_ends(truth, scores, drawn.values[name], drawn.variance(name), standing)
        return _ends(name, drawn, of_grades.get(name, standing))

    estimates = {name: drawn.estimate(name, ends(name)) for name in drawn.values}
    if is_closed:
        counted = estimates["auroc"].n_resamples_valid
        estimates |= {
            f"{name}_auroc": _alone(truth, values, standing, counted)
            for name, values in (others or {}).items()
        }
    estimates |= risk_estimates(estimates)
    plain = {"coverage_at_risk_10": coverage_at_risk(truth, scores, RISK)} if len(truth) else {}
    if probability:
        found = miscalibration(truth, scores, groups, seed=seed, resamples=resamples)
        estimates["ece"] = drawn.estimate("ece", (found.low, found.high))
        plain |= calibration_numbers(found, truth, scores)
    area = estimates["auroc"].value
    notes = {
        name: note for name in estimates if (note := _note(name, estimates[name], standing, area)) is not None
    }
    return Summary(estimates, standing.n, standing.positives, with_ties(notes, of_areas), plain)


def with_ties(notes: Mapping[str, str], of_areas: Mapping[str, ArrayLike]) -> dict[str, str]:
    """The notes, with one on each AUROC of scores that are all equal: one half, which says nothing of the ranking.

    Args:
        notes: by metric; what has none, or one on its interval, may get one.
        of_areas: by metric, the scores that it is the AUROC of.
    """
    told = dict(notes)
    for name, values in of_areas.items():
        found, known = np.asarray(values, dtype=np.float64), notes.get(name)
        is_of_interval = known is None or known.endswith((SMALL_SAMPLES, SAFE_SIDE))
        if len(found) > 1 and is_of_interval and (found == found[0]).all():
            alike = f"all {len(found)} scores are equal, so that nothing is ranked"
            told[name] = alike if known is None else f"{known}; {alike}"
    return told


def calibration_numbers(
    found: Miscalibration, labels: ArrayLike, probabilities: ArrayLike
) -> dict[str, float]:
    """What stands beside an ECE: its noise floor, what is left beyond noise, the test of calibration, other sizes."""
    return {
        "ece_noise_floor": found.floor,
        "ece_debiased": found.debiased,
        "calibration_p": found.p_value,
        "smooth_ece": smooth_ece(labels, probabilities),
        "ce2_debiased": ce2_debiased(labels, probabilities),
    }


def area_interval(
    truth: ArrayLike, scores: ArrayLike, drawn: Resampled, name: str, standing: Standing
) -> Ends:
    """Ends of an AUROC: by DeLong's variance where examples stand alone, else by that of the resamples."""
    if np.isnan(drawn.values[name]) or standing.is_clustered:
        return area_ends(drawn.values[name], drawn.variance(name), standing)
    return area_ends(drawn.values[name], Placements.of(truth, scores).variance(), standing)


def _alone(truth: ArrayLike, scores: ArrayLike, standing: Standing, counted: int) -> Estimate:
    """An AUROC of examples that stand alone, both classes among them, by DeLong's variance."""
    placements = Placements.of(truth, scores)
    return Estimate(placements.area, *area_ends(placements.area, placements.variance(), standing), counted)


def mean_estimate(
    values: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    is_share: bool = False,
    least: float = -np.inf,
) -> Estimate:
    """A mean with its interval, clusters whole.

    Args:
        values: `float[n]`.
        groups: cluster of each; None: each stands alone.
        is_share: each value lies in [0, 1], where the interval is Wilson's with what the mean is worth.
        least: what no value can be below, so that no end is.
    """
    found = as_scores(values, np.size(values))
    if not found.size:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value = float(found.mean())
    if not is_share:
        low, high = mean_ends(found, groups)
        return Estimate(value, float(np.maximum(low, least)), high, 0)
    standing = Standing.of(found > value if 0 < value < 1 else found > 0, groups)
    return Estimate(value, *mean_of_shares_ends(value, variance_of_mean(found, groups), standing), 0)


def variance_of_mean(values: FloatArray, groups: Sequence[str] | None) -> float:
    """As `shares.mean_variance`; `nan` below two clusters."""
    clusters = len(values) if groups is None else len(set(groups))
    return mean_variance(values, groups) if clusters > 1 else float("nan")


def _above_mean(grades: ArrayLike, groups: Sequence[str] | None) -> Standing:
    """What stands behind a number of graded examples: those above the mean as positives."""
    found = np.asarray(grades, dtype=np.float64)
    return Standing.of(found > found.mean(), groups) if found.size else Standing(0, 0, 0, 0, 1.0)


def _ends(name: str, drawn: Resampled, standing: Standing) -> Ends:
    value, variance = drawn.values[name], drawn.variance(name)
    if name == "accuracy":
        return share_ends(value, variance, standing)
    if name in ("brier", "ece"):
        return ranked_ends(value, variance, standing.n, standing)
    return selective_ends(name, drawn, standing)


def _note(name: str, estimate: Estimate, standing: Standing, area: float) -> str | None:
    needs_both = name.endswith(_NEED_BOTH_CLASSES)
    title = name.upper() if name in _NEED_BOTH_CLASSES else name
    if standing.n == 0:
        return NO_ANSWERS
    if needs_both and standing.positives in (0, standing.n):
        kind = "correct" if standing.positives else "wrong"
        return f"all {standing.n} answers are {kind}: {title} needs both classes"
    if np.isnan(estimate.value):
        graded = name.removeprefix("prr_")
        return (
            f"all {standing.n} answers have the same {graded}" if graded != name else f"{title} is undefined"
        )
    if np.isnan(estimate.low):
        return NO_INTERVAL
    return few_note(name, standing, area)


def few_note(name: str, standing: Standing, area: float = float("nan")) -> str | None:
    """Why the interval of a metric need not cover, or covers too often; None where it does what it says.

    Args:
        name: of the metric.
        standing: what stands behind it.
        area: AUROC of the scores that the metric is of, where it is of any.
    """
    is_count = name == "accuracy" and not standing.is_clustered  # whose interval covers however few are wrong
    if standing.few and not is_count:
        return f"{standing.few}: {SMALL_SAMPLES}"
    if why := _why_wide(name, standing, area):
        return f"{why}: {SAFE_SIDE}"
    return None


def _why_wide(name: str, standing: Standing, area: float) -> str:
    """Why an interval holds the truth more often than it says, in words that many cells share; else empty.

    As simulated with 5 to 10 of a class, and where less than 0.75 of it is misplaced (see LOG): what few errors show
    of those that are ranked high is little, and there the interval is as wide as the worst that is likely.
    """
    if name == "ece":
        return "how the gaps lie is not known" if standing.clusters < _MANY_FOR_GAPS else ""
    is_ranked = name == "auprc" or name.startswith(_OF_REJECTION)
    if not (is_ranked or name == "brier" or name in _OF_CALLS):
        return ""
    if standing.fewest <= _FEW_FOR_MOST:
        of = "groups with" if standing.is_clustered else "examples of"
        return f"no more than {_FEW_FOR_MOST} {of} one class"
    return "an almost perfect ranking" if is_ranked and is_nearly_perfect(area, standing) else ""
