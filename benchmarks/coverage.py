"""How often the intervals of a cell hold the truth, over simulated data sets.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --data-sets 500

Scores are normal in each class (binormal), at a given AUROC; the truth of every number is that of one sample of half a
million. A data set counts only where at least 5 examples stand in each class, where clusters are not fewer than 10.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from probegrid.evaluation.classification import classification_metrics, evaluate_classification
from probegrid.evaluation.miscalibration import miscalibration
from probegrid.evaluation.summary import answer_metrics, evaluate_answers

Sample = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp]]
ANSWERS = ("accuracy", "auroc", "auprc", "aurc", "eaurc", "accuracy_at_80", "augrc", "prr")
CALLS = ("accuracy", "f1", "balanced_accuracy", "mcc", "recall_at_1_fpr", "within_conversation_auroc")


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
    Setting(0.5, 0.75, 20),
    *(Setting(0.5, area, 50) for area in (0.75, 0.9, 0.98)),
    *(Setting(share, 0.9, 50) for share in (0.1, 0.9)),
    *(Setting(0.5, area, 100) for area in (0.75, 0.9, 0.98, 0.995)),
    Setting(0.5, 0.9, 100, ties=True),
    *(Setting(share, area, 100) for share in (0.05, 0.95) for area in (0.75, 0.9, 0.98)),
    *(Setting(share, area, 400) for share in (0.02, 0.5, 0.9, 0.98) for area in (0.75, 0.98)),
    Setting(0.5, 0.995, 400, ties=True),
    Setting(0.98, 0.9, 3000),
]
CLUSTERED = [
    *(Setting(0.6, 0.8, clusters=clusters) for clusters in (2, 3, 5, 10, 20, 60)),
    *(Setting(0.9, 0.95, clusters=clusters) for clusters in (10, 20, 60)),
    Setting(0.1, 0.95, clusters=20),
]


def truth_of(setting: Setting) -> dict[str, float]:
    """Every number on one large sample."""
    labels, scores, cluster = setting.draw(np.random.default_rng(1), 100_000 if setting.clusters else 500_000)
    weights = np.ones((1, len(labels)))
    answers = answer_metrics(labels, scores)(weights)
    threshold = np.sqrt(2) * norm.ppf(setting.auroc) / 2
    talks = cluster if setting.clusters else np.zeros(len(labels), dtype=int)
    calls = classification_metrics(
        labels, scores, np.full(len(labels), 0.5), talks if setting.clusters else cluster, threshold
    )(weights)
    return {f"answers {name}": float(answers[name][0]) for name in ANSWERS} | {
        f"calls {name}": float(calls[name][0]) for name in CALLS if not np.isnan(calls[name][0])
    }


def covered(setting: Setting, data_sets: int, resamples: int) -> tuple[int, dict[str, list[bool]]]:
    """Whether the interval of each number held the truth, a data set each."""
    truth, generator = truth_of(setting), np.random.default_rng(2)
    held: dict[str, list[bool]] = {name: [] for name in truth}
    used = 0
    for seed in range(data_sets):
        labels, scores, cluster = setting.draw(generator)
        fewer = min(labels.sum(), (~labels).sum())
        if fewer < (1 if 0 < setting.clusters < 10 else 5):
            continue
        used += 1
        groups = [f"{number:05}" for number in cluster]
        answers = evaluate_answers(
            labels, scores, groups if setting.clusters else None, seed=seed, resamples=resamples
        )
        threshold = np.sqrt(2) * norm.ppf(setting.auroc) / 2
        calls = evaluate_classification(
            labels,
            scores,
            np.full(len(labels), 0.5),
            groups,
            groups,
            threshold,
            seed=seed,
            resamples=resamples,
        )
        for name, value in truth.items():
            kind, _, metric = name.partition(" ")
            one = (answers if kind == "answers" else calls).estimates[metric]
            if not np.isnan(one.value):
                held[name].append(bool(one.low - 1e-12 <= value <= one.high + 1e-12))
    return used, held


def rows(data_sets: int, resamples: int) -> Iterator[str]:
    """The table, a line a setting."""
    for setting in (*ALONE, *CLUSTERED):
        used, held = covered(setting, data_sets if setting.n < 3000 else data_sets // 5, resamples)
        yield f"{setting} ({used}): " + ", ".join(
            f"{name.replace('answers ', '').replace('calls ', 'c.')} {100 * np.mean(found):.1f}"
            for name, found in held.items()
            if found
        )


def ece_rows(data_sets: int, resamples: int) -> Iterator[str]:
    """Coverage of the ECE's interval, and how often it begins at 0, for right and for wrong probabilities."""
    truths = {
        "calibrated": lambda stated: stated,
        "lower by 0.1": lambda stated: np.clip(stated - 0.1, 0, 1),
        "log-odds halved": lambda stated: 1 / (1 + np.sqrt((1 - stated) / stated)),
    }
    for said, true in truths.items():
        for shape in ((1, 1), (8, 1)):
            generator = np.random.default_rng(3)
            large = generator.beta(*shape, size=2_000_000)
            gaps = np.bincount(np.ceil(large * 15).astype(int) - 1, true(large) - large, 15) / len(large)
            truth = float(np.abs(gaps).sum())
            for n in (50, 400, 3000):
                found = []
                for seed in range(data_sets if n < 3000 else data_sets // 5):
                    stated = generator.beta(*shape, size=n)
                    labels = generator.random(n) < true(stated)
                    found.append(miscalibration(labels, stated, seed=seed, resamples=resamples))
                held = 100 * np.mean([one.low <= truth <= one.high for one in found])
                at_zero = 100 * np.mean([one.low == 0 for one in found])
                middle = np.mean([one.debiased for one in found])
                yield (
                    f"ECE, beta{shape} probabilities {said}, n {n}: truth {truth:.3f}, plug-in "
                    f"{np.mean([one.ece for one in found]):.3f}, debiased {middle:.3f}, covered {held:.1f}, "
                    f"from 0 {at_zero:.1f}"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=300)
    arguments = parser.parse_args()
    for table in (ece_rows, rows):
        for row in table(arguments.data_sets, arguments.resamples):
            print(row, flush=True)
