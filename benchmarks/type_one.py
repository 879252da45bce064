"""How often comparisons of equally good scorings call them different, and how often those of unequal ones do.

    OMP_NUM_THREADS=1 python benchmarks/type_one.py --data-sets 2000

Two scores share half of their variance; each is normal in each class, so that their AUROCs are equal, or the first's is
better by a gain. Their calls (above the middle between the classes) are compared by accuracy. DeLong's test (1988)
stands beside ours where examples stand alone and labels are the same; with labels of their own, as two models' answers
have, half of the questions are drawn apart, and accuracy is that of the labels. The test of calibration is on
calibrated and on overconfident probabilities.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from probegrid.evaluation.delong import paired_test
from probegrid.evaluation.miscalibration import miscalibration
from probegrid.evaluation.paired import compare_areas, compare_shares


@dataclass(frozen=True)
class Setting:
    """What data sets are like: examples alone, or clusters of 2 to 10 that share effects."""

    share: float
    auroc: float
    n: int = 0
    clusters: int = 0
    ties: bool = False
    gain: float = 0.0
    own_labels: bool = False

    def __str__(self) -> str:
        size = f"{self.clusters} clusters" if self.clusters else f"n {self.n}"
        gain = f" and {self.auroc + self.gain:g}" if self.gain else ""
        more = f"{', ties' if self.ties else ''}{', own labels' if self.own_labels else ''}"
        return f"{size}, {self.share:g} true, AUROC {self.auroc:g}{gain}{more}"


SETTINGS = [
    Setting(0.5, 0.75, 50),
    Setting(0.1, 0.75, 50),
    Setting(0.5, 0.95, 100),
    Setting(0.9, 0.9, 100, ties=True),
    Setting(0.5, 0.98, 200),
    Setting(0.5, 0.8, 400),
    Setting(0.95, 0.9, 400),
    *(Setting(0.5, 0.8, clusters=clusters) for clusters in (10, 20, 60)),
    Setting(0.8, 0.95, clusters=20),
    Setting(0.5, 0.8, 100, own_labels=True),
    *(Setting(0.5, 0.8, clusters=clusters, own_labels=True) for clusters in (10, 20, 60)),
    Setting(0.5, 0.75, 400, gain=0.05),
    Setting(0.1, 0.75, 50, gain=0.15),
    Setting(0.9, 0.9, 400, gain=0.05),
    *(Setting(0.5, 0.75, clusters=clusters, gain=0.05) for clusters in (20, 60)),
]


def p_values(setting: Setting, data_sets: int) -> Iterator[dict[str, float]]:
    """The p-values of one data set after another, by test."""
    generator = np.random.default_rng(1)
    for seed in range(data_sets):
        sizes = (
            generator.integers(2, 11, setting.clusters) if setting.clusters else np.ones(setting.n, dtype=int)
        )
        cluster = np.repeat(np.arange(len(sizes)), sizes)
        n = len(cluster)
        effects = generator.normal(size=(3, len(sizes)))[:, cluster] * bool(setting.clusters)
        chance = 1 / (1 + np.exp(-np.log(setting.share / (1 - setting.share)) - 1.2 * effects[0]))
        labels = [generator.random(n) < chance]
        labels.append(_half_drawn_apart(labels[0], chance, generator) if setting.own_labels else labels[0])
        if min(of.sum() for own in labels for of in (own, ~own)) < 2:
            continue
        shared = generator.normal(size=n) * np.sqrt(0.5)
        scores = []
        for number, area in enumerate((setting.auroc + setting.gain, setting.auroc)):
            noise = shared + generator.normal(size=n) * np.sqrt(0.5) + 0.5 * effects[1 + number]
            score = noise + labels[number] * np.sqrt(2) * norm.ppf(area)
            scores.append(np.round(score * 2) / 2 if setting.ties else score)
        groups = [str(number) for number in cluster] if setting.clusters else None
        first, second = zip(labels, scores, strict=True)
        middle = np.sqrt(2) * norm.ppf(setting.auroc) / 2
        right = labels if setting.own_labels else [(of > middle) == labels[0] for of in scores]
        found = {
            "AUROC": compare_areas(first, second, groups, seed=seed).p_value,
            "accuracy": compare_shares(*right, groups, seed=seed).p_value,
        }
        if not setting.clusters and not setting.own_labels:
            found["DeLong"] = paired_test(labels[0], *scores)[1]
        yield found


def _half_drawn_apart(
    labels: NDArray[np.bool_], chance: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Another model's labels: half of them the same, half drawn anew with the same chances."""
    return np.where(generator.random(len(labels)) < 0.5, labels, generator.random(len(labels)) < chance)


def calibration(n: int, data_sets: int, times_too_sure: float) -> str:
    """The test of calibration on probabilities whose log-odds are so many times too large; 1 is calibrated."""
    generator = np.random.default_rng(2)
    found = []
    for seed, stated in enumerate(np.clip(generator.beta(2, 0.7, size=(data_sets, n)), 1e-9, 1 - 1e-9)):
        true = 1 / (1 + ((1 - stated) / stated) ** (1 / times_too_sure))
        labels = generator.random(n) < true
        found.append(miscalibration(labels, stated, seed=seed, resamples=500).p_value)
    shares = [100 * np.mean(np.array(found) < level) for level in (0.05, 0.01)]
    return f"calibration, n {n}, {times_too_sure:g} times too sure: {shares[0]:.1f}, {shares[1]:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=2000)
    parser.add_argument("--settings", nargs="+", default=[""], help="those that hold one of these texts")
    parser.add_argument("--no-calibration", action="store_true", help="leave the test of calibration out")
    arguments = parser.parse_args()
    for setting in SETTINGS:
        if not any(text in str(setting) for text in arguments.settings):
            continue
        rows = [*p_values(setting, arguments.data_sets // (4 if setting.gain else 1))]  # power needs no 1%
        shares = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        said = ", ".join(
            f"{name} {100 * np.mean(found < 0.05):.1f} {100 * np.mean(found < 0.01):.1f}"
            for name, found in shares.items()
        )
        print(f"{setting}: {said}", flush=True)
    for n, times_too_sure in (
        () if arguments.no_calibration else ((50, 1.0), (400, 1.0), (50, 2.0), (400, 1.5))
    ):
        print(calibration(n, arguments.data_sets // 2, times_too_sure), flush=True)
