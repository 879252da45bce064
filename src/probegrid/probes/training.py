"""Fitting a probe on each fold of a division, choosing on validation, and gathering the test examples.

Knows trained probes, divisions and scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probegrid.evaluation.classification import layer_aurocs
from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.selection import best_column, best_threshold
from probegrid.evaluation.splits import TEST, VALIDATION, Division, Fold

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from probegrid.evaluation.checks import BoolArray, FloatArray
    from probegrid.evaluation.intervals import Estimate
    from probegrid.probes.base import ActivationProbe
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe
    from probegrid.probes.text_baseline import TextBaseline


@dataclass(frozen=True)
class Examples:
    """What is divided, learned from and scored: n examples.

    Attributes:
        ids, conversations, texts, sources: a string each.
        labels: bool[n].
    """

    ids: tuple[str, ...]
    conversations: tuple[str, ...]
    texts: tuple[str, ...]
    sources: tuple[str, ...]
    labels: BoolArray


@dataclass(frozen=True)
class Trained:
    """What the probe of one fold says of all examples.

    Attributes:
        fold: which examples it learned from, was chosen by, and is tested on.
        scores: float64[n], larger where true is more likely.
        scale: log-odds of true are ``scale * score``.
        threshold: a score above it is called true; chosen on validation.
    """

    fold: Fold
    scores: FloatArray
    scale: float
    threshold: float

    @property
    def test_rows(self) -> NDArray[np.intp]:
        """Indices of the test examples."""
        return np.flatnonzero(self.fold.parts == TEST)


@dataclass(frozen=True)
class TrainedOnLayers(Trained):
    """The same of a probe on activations.

    Attributes:
        fitted: a direction a layer.
        layer: the one chosen on validation; ``scores`` are its.
        by_layer: float64[n, layers], the scores of every layer.
    """

    fitted: FittedProbe
    layer: int
    by_layer: FloatArray


def train_on_text(probe: TextBaseline, examples: Examples, fold: Fold) -> Trained:
    """Fit the text baseline; its score is the log-odds, its threshold an even chance."""
    scores = probe.fit(examples.texts, examples.labels, fold.parts).scores(examples.texts)
    return Trained(fold, scores, scale=1.0, threshold=0.0)


def train_on_layers(
    probe: ActivationProbe, examples: Examples, fold: Fold, layers: tuple[int, ...], activations: Tensor
) -> TrainedOnLayers:
    """Fit every layer; choose a layer, by its AUROC, and a threshold on validation.

    Args:
        probe: what is fitted.
        examples: n of them.
        fold: their splits.
        layers: the l layers of the activations, rising.
        activations: [n, l, d] of any float type, on the device to compute on.
    """
    from probegrid.probes.fitting.features import Features

    return _train(probe, Features(activations, layers, examples.labels, fold.parts), fold)


def control_auroc(
    probe: ActivationProbe, examples: Examples, fold: Fold, layers: tuple[int, ...], activations: Tensor
) -> Estimate:
    """Test AUROC of the same probe where labels are shuffled within every split, the test's too.

    What it reaches above one half is memory, not meaning (Hewitt & Liang 2019, arXiv 1909.03368).
    """
    from probegrid.probes.fitting.features import Features

    features = Features(activations, layers, examples.labels, fold.parts).with_shuffled_labels(probe.seed)
    trained = _train(probe, features, fold)
    rows = trained.test_rows
    conversations = [examples.conversations[row] for row in rows]
    scores = trained.scores[rows, np.newaxis]
    return layer_aurocs(features.labels[rows], scores, conversations, seed=probe.seed)[0]


def _train(probe: ActivationProbe, features: Features, fold: Fold) -> TrainedOnLayers:
    fitted = probe.fit(features)
    by_layer = fitted.scores(features.activations)
    scales = fitted.scales.numpy()
    validation = fold.parts == VALIDATION
    truth = features.labels[validation]
    column = best_column(truth, (by_layer * scales)[validation])
    return TrainedOnLayers(
        fold=fold,
        scores=by_layer[:, column],
        scale=float(scales[column]),
        threshold=best_threshold(truth, by_layer[validation, column]),
        fitted=fitted,
        layer=features.layers[column],
        by_layer=by_layer,
    )


@dataclass(frozen=True)
class TestSet:
    """The test examples of all folds, each once.

    Attributes:
        rows: intp[m], which examples.
        scores: float64[m]; of several folds, log-odds beyond each fold's threshold, which makes them comparable.
        probabilities: float64[m], of true.
        threshold: a score above it is called true.
    """

    __test__ = False  # not a test of pytest's

    rows: NDArray[np.intp]
    scores: FloatArray
    probabilities: FloatArray
    threshold: float

    @classmethod
    def of(cls, folds: Sequence[Trained]) -> TestSet:
        """Gather the test examples of folds that test no example twice."""
        from scipy.special import expit

        rows = [trained.test_rows for trained in folds]
        log_odds = [trained.scale * trained.scores[of] for trained, of in zip(folds, rows, strict=True)]
        if len(folds) == 1:
            scores, threshold = [folds[0].scores[rows[0]]], folds[0].threshold
        else:
            scores = [odds - part.scale * part.threshold for odds, part in zip(log_odds, folds, strict=True)]
            threshold = 0.0
        return cls(np.concatenate(rows), np.concatenate(scores), expit(np.concatenate(log_odds)), threshold)


def validation_auroc(trained: Trained, labels: BoolArray) -> float:
    """AUROC on the validation split, by which one fold's probe may be preferred to another's."""
    rows = trained.fold.parts == VALIDATION
    return auroc(labels[rows], trained.scores[rows])


def layer_course(
    folds: Sequence[TrainedOnLayers], examples: Examples, division: Division, *, seed: int
) -> list[Estimate]:
    """Test AUROC of every layer with its interval, over the test examples of all folds, clustered by group."""
    rows = np.concatenate([trained.test_rows for trained in folds])
    scales = [trained.fitted.scales.numpy() for trained in folds]
    scores = np.concatenate(
        [trained.by_layer[trained.test_rows] * scale for trained, scale in zip(folds, scales, strict=True)]
    )
    return layer_aurocs(examples.labels[rows], scores, [str(division.groups[row]) for row in rows], seed=seed)
