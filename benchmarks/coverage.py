"""How often the intervals of a cell hold the truth, over simulated data sets.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --data-sets 600
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --tables alone --settings "n 400, 0.9 true" --data-sets 2000
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --tables exact calls

Scores are normal in each class (binormal), at a given AUROC; the truth of every number is that of one sample of half a
million. A data set counts only where at least 5 examples stand in each class, where clusters are not fewer than 10. The
ECE is of probabilities drawn from a beta distribution, with labels that have these probabilities or others; there data
sets with fewer of a class, which a note tells of, stand in a column of their own. The accuracy of examples that stand
alone is not simulated: its coverage is a sum of binomial probabilities, over all counts with 5 of each class. ``exact``
has it over all shares of which 5 of each class are expected, beside two intervals by binomial tails. ``calls`` is of
what a threshold calls true, at even odds by Bayes' rule.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr
from scipy.stats import beta, binom, norm

from probegrid.evaluation.classification import classification_metrics, evaluate_classification
from probegrid.evaluation.intervals import Estimate, resampled
from probegrid.evaluation.miscalibration import miscalibration
from probegrid.evaluation.ranking import Ranking
from probegrid.evaluation.selective import selective_ends
from probegrid.evaluation.shares import FEW_ERRORS, Standing, share_ends
from probegrid.evaluation.summary import answer_metrics, area_interval, evaluate_answers

Find = Callable[["Setting", "Sample", int, int], Mapping[str, Estimate]]
Truth = Callable[["Setting"], Mapping[str, float]]
Ends = tuple[NDArray[np.float64], NDArray[np.float64]]
Sample = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp]]
ANSWERS = ("accuracy", "auroc", "auprc", "aurc", "accuracy_at_80", "augrc", "prr")
CALLS = ("recall_at_1_fpr", "within_conversation_auroc")
"""Of clustered data sets alone, since without conversations there is nothing within them."""
CALLED = ("balanced_accuracy", "mcc", "precision", "recall", "f1", "brier", "recall_at_1_fpr")
"""Of what a threshold calls true."""


@dataclass(frozen=True)
class Setting:
    """What data sets are like: examples alone, or clusters of 2 to 10 that share an effect."""

    share: float
    auroc: float
    n: int = 0
    clusters: int = 0
    ties: bool = False

    def draw(self, generator: np.random.Generator, size: int | None = None) -> Sample:
        """Labels, scores and clusters; ``size`` examples, or clusters, in place of the setting's own."""
        if self.clusters:
            sizes = generator.integers(2, 11, size or self.clusters)
            cluster = np.repeat(np.arange(len(sizes)), sizes)
            effect = generator.normal(size=(2, len(sizes)))[:, cluster]
        else:
            cluster = np.arange(size or self.n)
            effect = np.zeros((2, len(cluster)))
        chance = 1 / (1 + np.exp(-np.log(self.share / (1 - self.share)) - 1.2 * effect[0]))
        labels = generator.random(len(cluster)) < chance
        scores = generator.normal(size=len(cluster)) + labels * np.sqrt(2) * norm.ppf(self.auroc)
        scores += 0.7 * effect[1]
        return labels, np.round(scores * 2) / 2 if self.ties else scores, cluster

    def __str__(self) -> str:
        size = f"{self.clusters} clusters" if self.clusters else f"n {self.n}"
        return f"{size}, {self.share:g} true, AUROC {self.auroc:g}{', ties' if self.ties else ''}"


ALONE = [
    *(Setting(0.5, area, 20) for area in (0.75, 0.9)),
    Setting(0.75, 0.75, 20),
    *(Setting(share, area, 50) for share in (0.1, 0.5, 0.9) for area in (0.75, 0.9, 0.98)),
    *(Setting(share, area, 100) for share in (0.05, 0.2, 0.5, 0.8, 0.95) for area in (0.75, 0.9, 0.98)),
    *(Setting(0.5, area, 100, ties=ties) for area, ties in ((0.995, False), (0.9, True))),
    *(Setting(share, area, 400) for share in (0.02, 0.1, 0.5, 0.9, 0.98) for area in (0.75, 0.98)),
    *(Setting(share, 0.995, 400, ties=True) for share in (0.1, 0.5)),
    Setting(0.02, 0.75, 3000),
    Setting(0.5, 0.9, 3000, ties=True),
    *(Setting(0.98, area, 3000) for area in (0.75, 0.995)),
]
CLUSTERED = [
    *(Setting(0.6, 0.8, clusters=clusters) for clusters in (2, 3, 5, 10, 20, 60)),
    *(Setting(0.9, 0.95, clusters=clusters) for clusters in (10, 20, 60)),
    Setting(0.1, 0.95, clusters=20),
    Setting(0.5, 0.9, clusters=20, ties=True),
]
WITH_CALLS = [
    *(Setting(0.5, area, 20) for area in (0.75, 0.9)),
    *(Setting(0.1, area, 50) for area in (0.75, 0.9, 0.98)),
    Setting(0.5, 0.9, 50),
    Setting(0.05, 0.9, 100),
    *(Setting(0.2, area, 100) for area in (0.9, 0.98)),
    Setting(0.95, 0.9, 100),
    *(Setting(share, area, 400) for share, area in ((0.02, 0.75), (0.1, 0.9), (0.5, 0.98))),
]


def truth_of(setting: Setting) -> dict[str, float]:
    """Every number on one large sample."""
    labels, scores, cluster = setting.draw(np.random.default_rng(1), 100_000 if setting.clusters else 500_000)
    weights = np.ones((1, len(labels)))
    found = dict(answer_metrics(labels, scores)(weights))
    if setting.clusters:
        half = np.full(len(labels), 0.5)
        calls = classification_metrics(labels, scores, half, cluster, 0.0)(weights)
        found |= {name: calls[name] for name in CALLS}
    return {name: float(found[name][0]) for name in (*ANSWERS, *CALLS) if name in found}


def found_in(setting: Setting, sample: Sample, seed: int, resamples: int) -> Mapping[str, Estimate]:
    """The intervals of one data set."""
    labels, scores, cluster = sample
    groups = [f"{number:05}" for number in cluster] if setting.clusters else None
    found = dict(evaluate_answers(labels, scores, groups, seed=seed, resamples=resamples).estimates)
    if groups is not None:
        half = np.full(len(labels), 0.5)
        calls = evaluate_classification(
            labels, scores, half, groups, groups, 0.0, seed=seed, resamples=resamples
        )
        found |= {name: calls.estimates[name] for name in CALLS}
    return found


def ranks_found_in(setting: Setting, sample: Sample, seed: int, resamples: int) -> Mapping[str, Estimate]:
    """The intervals of accuracy, AUROC and PRR alone, in a quarter of the time."""
    labels, scores, cluster = sample
    groups = [f"{number:05}" for number in cluster] if setting.clusters else None
    ranking, standing = Ranking(labels, scores), Standing.of(labels, groups)

    def metrics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        counts = ranking.counts(weights)
        return {"accuracy": counts.accuracy(), "auroc": counts.auroc(), "prr": counts.prr()}

    drawn = resampled(metrics, len(labels), groups, seed=seed, resamples=resamples)
    share = share_ends(drawn.values["accuracy"], drawn.variance("accuracy"), standing)
    ends = {
        "accuracy": share,
        "auroc": area_interval(labels, scores, drawn, "auroc", standing),
        "prr": selective_ends("prr", drawn, standing),
    }
    return {name: drawn.estimate(name, of) for name, of in ends.items()}


def covered(
    setting: Setting, data_sets: int, resamples: int, find: Find, truth: Mapping[str, float]
) -> tuple[int, dict[str, list[bool]]]:
    """Whether the interval of each number held the truth, a data set each, and how many data sets were used."""
    generator = np.random.default_rng(2)
    held: dict[str, list[bool]] = {name: [] for name in truth}
    used = 0
    for seed in range(4 * data_sets):
        sample = setting.draw(generator)
        fewer = min(sample[0].sum(), (~sample[0]).sum())
        if fewer < (1 if 0 < setting.clusters < 10 else 5):
            continue
        found = find(setting, sample, seed, resamples)
        for name, value in truth.items():
            if name in found and not np.isnan(found[name].low):  # else there is none, and a note says so
                held[name].append(bool(found[name].low - 1e-12 <= value <= found[name].high + 1e-12))
        used += 1
        if used == data_sets:
            break
    return used, held


def stated_of(setting: Setting, scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Probabilities by Bayes' rule, and the score of even odds."""
    apart = np.sqrt(2) * norm.ppf(setting.auroc)
    even = apart / 2 - np.log(setting.share / (1 - setting.share)) / apart
    return 1 / (1 + np.exp(-apart * (scores - even))), float(even)


def truth_of_calls(setting: Setting) -> dict[str, float]:
    """Every number of calls on one large sample, in groups that none of them looks at."""
    labels, scores, cluster = setting.draw(np.random.default_rng(1), 500_000)
    stated, even = stated_of(setting, scores)
    groups = [f"{row // 100:05}" for row in cluster]
    found = classification_metrics(labels, scores, stated, groups, even)(np.ones((1, len(labels))))
    return {name: float(found[name][0]) for name in CALLED}


def calls_found_in(setting: Setting, sample: Sample, seed: int, resamples: int) -> Mapping[str, Estimate]:
    """The intervals of the calls of one data set, true where the odds are better than even."""
    labels, scores, cluster = sample
    stated, even = stated_of(setting, scores)
    groups = [f"{row:05}" for row in cluster]
    return evaluate_classification(
        labels, scores, stated, groups, groups, even, seed=seed, resamples=resamples
    ).estimates


def wilson_ends(n: int) -> Ends:
    """Ours, of every count that n examples can have right."""
    standing = Standing(n, 0, n, 0, 1.0)
    low, high = np.array([share_ends(right / n, np.nan, standing) for right in range(n + 1)]).T
    return low, high


def midp_ends(n: int) -> Ends:
    """Clopper and Pearson's with half of the probability of the count found in each tail, by bisection."""
    right = np.arange(n + 1)
    low, high = np.zeros(n + 1), np.ones(n + 1)
    for _ in range(50):
        middle = (low + high) / 2
        below = np.where(right > 0, bdtr(np.maximum(right - 1, 0), n, middle), 0)
        is_possible = below + binom.pmf(right, n, middle) / 2 > 0.025
        low, high = np.where(is_possible, middle, low), np.where(is_possible, high, middle)
    upper = np.where(right == n, 1.0, low)
    return 1 - upper[::-1], upper


def exact_ends(n: int) -> Ends:
    """Clopper and Pearson's (1934)."""
    right = np.arange(n + 1)
    low = np.where(right > 0, beta.ppf(0.025, np.maximum(right, 1), n - right + 1), 0)
    return low, 1 - low[::-1]


def held_by(ends: Ends, shares: NDArray[np.float64], *, least: int) -> NDArray[np.float64]:
    """Chance that a share's interval holds it, given so many right and wrong at least: `float64[shares]`."""
    low, high = ends
    right = np.arange(len(low))
    chances = binom.pmf(right, len(low) - 1, shares[:, np.newaxis])
    chances[:, (right < least) | (right[::-1] < least)] = 0
    holds = (low <= shares[:, np.newaxis] + 1e-12) & (shares[:, np.newaxis] <= high + 1e-12)
    covered_by: NDArray[np.float64] = (chances * holds).sum(axis=1) / chances.sum(axis=1)
    return covered_by


def exact_rows() -> Iterator[str]:
    """Coverage of an accuracy's interval over all shares of which 5 of each class are expected."""
    yield "| n | interval | least (errors) | mean | most (errors) | below 93% | above 97% | mean width |"
    for n in (20, 28, 50, 100, 400, 3000):
        shares = np.linspace(5 / n, 0.5, 2000)
        for name, find in (("Wilson", wilson_ends), ("mid-p", midp_ends), ("Clopper-Pearson", exact_ends)):
            ends = find(n)
            held = 100 * held_by(ends, shares, least=0)
            of = [f"{held[at]:.1f} ({n * shares[at]:.1f})" for at in (held.argmin(), held.argmax())]
            outside = f"{100 * np.mean(held < 93):.1f} | {100 * np.mean(held > 97):.1f}"
            width = (binom.pmf(np.arange(n + 1), n, shares[:, np.newaxis]) @ (ends[1] - ends[0])).mean()
            yield f"| {n} | {name} | {of[0]} | {held.mean():.1f} | {of[1]} | {outside} | {width:.4f} |"


def named(settings: Sequence[Setting], texts: Sequence[str]) -> list[Setting]:
    """The settings whose name holds one of the texts."""
    return [setting for setting in settings if any(text in str(setting) for text in texts)]


def data_sets_of(setting: Setting, data_sets: int) -> int:
    """Fewer of the large ones, whose intervals leave 95% the least."""
    return data_sets // 2 if setting.n == 3000 else data_sets


def rows(
    settings: Sequence[Setting], data_sets: int, resamples: int, find: Find, truth_of: Truth = truth_of
) -> Iterator[str]:
    """The table, a line a setting; the accuracy of examples that stand alone exactly."""
    for number, setting in enumerate(settings):
        used, held = covered(setting, data_sets_of(setting, data_sets), resamples, find, truth_of(setting))
        of = {name: f"{100 * np.mean(found):.1f}" if found else "" for name, found in held.items()}
        if "accuracy" in of and not setting.clusters:
            share = np.array([setting.share])
            of["accuracy"] = f"{100 * held_by(wilson_ends(setting.n), share, least=FEW_ERRORS)[0]:.1f}"
        if not number:
            yield f"| setting | {' | '.join(of)} |"
        yield f"| {setting} ({used}) | {' | '.join(of.values())} |"


SHAPES = {"even": (1.0, 1.0), "near 1": (8.0, 1.0), "near 0": (0.4, 8.0)}
TRUE = {
    "calibrated": lambda stated: stated,
    "twice too sure": lambda stated: 1 / (1 + np.sqrt((1 - stated) / stated)),
}


def ece_rows(data_sets: int, resamples: int) -> Iterator[str]:
    """Coverage of the ECE's interval, and how often it begins at 0, for right and for wrong probabilities."""
    yield "| probabilities | ECE | plug-in | debiased | covered (of) | with fewer than 5 of a class (of) | from 0 |"
    for (said, true), (shape_said, shape) in itertools.product(TRUE.items(), SHAPES.items()):
        generator = np.random.default_rng(3)
        large = np.clip(generator.beta(*shape, size=2_000_000), 1e-9, 1 - 1e-9)
        gaps = np.bincount(np.ceil(large * 15).astype(int) - 1, true(large) - large, 15) / len(large)
        truth = float(np.abs(gaps).sum())
        for n in (20, 50, 100, 400, 3000):
            found, fewer = [], []
            for seed in range(data_sets if n < 3000 else data_sets // 4):
                stated = np.clip(generator.beta(*shape, size=n), 1e-9, 1 - 1e-9)
                labels = generator.random(n) < true(stated)
                found.append(miscalibration(labels, stated, seed=seed, resamples=resamples))
                fewer.append(min(labels.sum(), n - labels.sum()) < FEW_ERRORS)
            means = [np.mean([getattr(one, name) for one in found]) for name in ("ece", "debiased")]
            held, few = np.array([one.low <= truth <= one.high for one in found]), np.array(fewer)
            at_zero = 100 * np.mean([one.low == 0 for one in found])
            shares = [
                f"{100 * of.mean():.1f} ({len(of)})" if len(of) else "" for of in (held[~few], held[few])
            ]
            yield (
                f"| {said}, {shape_said}, n {n} | {truth:.3f} | {means[0]:.3f} | {means[1]:.3f} "
                f"| {' | '.join(shares)} | {at_zero:.1f} |"
            )


TABLES = ("exact", "alone", "calls", "clustered", "ece")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=600)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="all by default")
    parser.add_argument(
        "--settings", nargs="+", default=[""], help="those of a table that hold one of these texts"
    )
    parser.add_argument(
        "--ranks", action="store_true", help="accuracy, AUROC and PRR alone, in a quarter of the time"
    )
    arguments = parser.parse_args()
    size = arguments.data_sets, arguments.resamples
    find = ranks_found_in if arguments.ranks else found_in
    tables = {
        "exact": exact_rows,
        "calls": lambda: rows(named(WITH_CALLS, arguments.settings), *size, calls_found_in, truth_of_calls),
        "alone": lambda: rows(named(ALONE, arguments.settings), *size, find),
        "clustered": lambda: rows(named(CLUSTERED, arguments.settings), *size, find),
        "ece": lambda: ece_rows(*size),
    }
    for table in arguments.tables:
        for row in tables[table]():
            print(row, flush=True)
