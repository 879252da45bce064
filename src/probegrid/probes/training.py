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
from probegrid.evaluation.splits import TEST, VALIDATION, Division, Fold, divide

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from probegrid.evaluation.checks import BoolArray, FloatArray
    from probegrid.evaluation.intervals import Estimate
    from probegrid.probes.base import ActivationProbe, Fitted, TrainedProbe
    from probegrid.probes.fitting.features import Features


@dataclass(frozen=True)
class Examples:
    """What is divided, learned from and scored: n examples.

    Attributes:
        ids, conversations, texts, sources: a string each.
        labels: bool[n].
        groups: a string each, of the data's own groups; empty where it names none.
        are_statements: whether a text is a statement, which is about something, and not a question with its answer.
        entropies: float64[n], the discrete semantic entropy of the samples of each question; None where there are none.
    """

    ids: tuple[str, ...]
    conversations: tuple[str, ...]
    texts: tuple[str, ...]
    sources: tuple[str, ...]
    labels: BoolArray
    groups: tuple[str, ...] = ()
    are_statements: bool = True
    entropies: FloatArray | None = None


@dataclass(frozen=True)
class Trained:
    """What the probe of one fold says of all examples.

    Attributes:
        fold: which examples it learned from, was chosen by, and is tested on.
        fitted: the probe; it may score in several ways, a column a layer.
        column: the one chosen on validation.
        by_column: float64[n, columns], larger where true is more likely.
        scale: log-odds of true are ``scale * score`` at the chosen column.
        threshold: a score above it is called true.
        labels: bool[n], of all examples.
    """

    fold: Fold
    fitted: Fitted
    column: int
    by_column: FloatArray
    scale: float
    threshold: float
    labels: BoolArray

    @property
    def scores(self) -> FloatArray:
        """float64[n], by the chosen column."""
        chosen: FloatArray = self.by_column[:, self.column]
        return chosen

    @property
    def test_rows(self) -> NDArray[np.intp]:
        """Indices of the test examples."""
        return np.flatnonzero(self.fold.parts == TEST)

    def calibrated(self, kind: str) -> FloatArray:
        """Probabilities of true of the test examples, by a calibrator fitted on validation: float64[m].

        Args:
            kind: ``platt`` or ``isotonic``.
        """
        from probegrid.evaluation.calibrators import isotonic, platt

        validation = self.fold.parts == VALIDATION
        fit = {"platt": platt, "isotonic": isotonic}[kind]
        return fit(self.labels[validation], self.scores[validation])(self.scores[self.test_rows])

    def beyond_thresholds(self) -> FloatArray:
        """Log-odds of the test examples beyond each column's own threshold, which make folds comparable: float64[m, c].

        At the chosen column they are those that `TestSet` gathers.
        """
        validation = self.fold.parts == VALIDATION
        thresholds = [
            best_threshold(self.labels[validation], column[validation]) for column in self.by_column.T
        ]
        thresholds[self.column] = self.threshold
        beyond: FloatArray = (self.by_column[self.test_rows] - thresholds) * np.asarray(self.fitted.scales)
        return beyond


def train(probe: TrainedProbe, features: Features, fold: Fold) -> Trained:
    """Fit, choose a column by its AUROC and a threshold on validation.

    Args:
        probe: what is fitted.
        features: the examples, in the splits of the fold.
        fold: their splits.
    """
    fitted = _fitted(probe, features)
    by_column, scales = fitted.score(features), np.asarray(fitted.scales)
    validation = fold.parts == VALIDATION
    truth = features.labels[validation]
    chosen = getattr(fitted, "column", None)
    column = best_column(truth, (by_column * scales)[validation]) if chosen is None else int(chosen)
    threshold = fitted.threshold
    if threshold is None:
        threshold = best_threshold(truth, by_column[validation, column])
    return Trained(fold, fitted, column, by_column, float(scales[column]), threshold, features.labels)


def _fitted(probe: TrainedProbe, features: Features) -> Fitted:
    """The probe of each layer, or one of all of them at once where it asks for that and there are several."""
    if not getattr(probe, "joined", False) or len(features.layers) < _SEVERAL:
        return probe.fit(features)
    from probegrid.probes.fitting.fitted import FittedByLayer
    from probegrid.probes.fitting.joined import FittedJoined

    inner = probe.fit(features.joined())
    assert isinstance(inner, FittedByLayer)
    return FittedJoined(features.layers, inner)


_SEVERAL = 2


def features_of(
    examples: Examples, fold: Fold, layers: tuple[int, ...] = (), activations: Tensor | None = None
) -> Features:
    """What a probe of one fold is fitted on.

    Args:
        examples: n of them.
        fold: their splits.
        layers: the l layers of the activations, rising.
        activations: [n, l, d] of any float type, on the device to compute on; None where none are needed.
    """
    import torch

    from probegrid.probes.fitting.features import Features

    held = torch.empty(len(examples.ids), 0, 0) if activations is None else activations
    return Features(
        held, layers, examples.labels, fold.parts, examples.texts, examples.sources, examples.entropies
    )


def control_auroc(
    probe: ActivationProbe,
    examples: Examples,
    layers: tuple[int, ...],
    activations: Tensor,
    division: Division,
) -> Estimate:
    """Test AUROC of the same probe on a control task: a random label a text, the same wherever the text is.

    What it reaches above one half is memory, not meaning (Hewitt & Liang 2019, arXiv 1909.03368). Its examples are
    divided one by one, whatever the probe's split is: a text must be able to recur, or the control could not fail.

    Args:
        probe: what is fitted.
        examples: n of them.
        layers: the l layers of the activations, rising.
        activations: [n, l, d] of any float type, on the device to compute on.
        division: the probe's, whose groups an interval keeps whole.
    """
    (fold,) = divide(
        "random", examples.labels, examples.conversations, examples.texts, examples.sources, seed=probe.seed
    ).folds
    control = features_of(examples, fold, layers, activations).with_shuffled_labels(probe.seed)
    trained = train(probe, control, fold)
    rows = trained.test_rows
    scores = trained.scores[rows, np.newaxis]
    groups = [str(division.groups[row]) for row in rows]
    return layer_aurocs(control.labels[rows], scores, groups, seed=probe.seed)[0]


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
    folds: Sequence[Trained], examples: Examples, division: Division, *, seed: int
) -> list[Estimate]:
    """Test AUROC of every layer with its interval, over the test examples of all folds, clustered by group.

    Folds are pooled as in `TestSet`, so that the chosen layer has the AUROC of the cell.
    """
    rows = np.concatenate([trained.test_rows for trained in folds])
    if len(folds) == 1:
        scores = folds[0].by_column[rows] * np.asarray(folds[0].fitted.scales)
    else:
        scores = np.concatenate([trained.beyond_thresholds() for trained in folds])
    return layer_aurocs(examples.labels[rows], scores, [str(division.groups[row]) for row in rows], seed=seed)
