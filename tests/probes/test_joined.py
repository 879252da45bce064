"""One probe on several layers at once: the fit on joined activations, saved and read again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from probegrid.errors import ConfigError
from probegrid.evaluation.splits import Fold
from probegrid.probes import ActivationProbe
from probegrid.probes.fitting.joined import FittedJoined
from probegrid.probes.knn import KNN
from probegrid.probes.lda import LDA
from probegrid.probes.logistic import Logistic
from probegrid.probes.mahalanobis import Mahalanobis
from probegrid.probes.mass_mean import MassMean
from probegrid.probes.saplma import SAPLMA
from probegrid.probes.saved import SavedProbe
from probegrid.probes.training import train
from probegrid.testing.probes import LAYERS, WIDTH, make_features


def test_is_scikit_learns_on_the_layers_behind_one_another() -> None:
    features = make_features(separation=1.5)
    fold = Fold("", features.parts)
    trained = train(Logistic(joined=True, C=[0.1]), features, fold)
    assert isinstance(trained.fitted, FittedJoined)
    assert trained.by_column.shape == (300, 1)
    wide = features.activations.flatten(1).double().numpy()
    rows = features.parts == "train"
    standard = (wide - wide[rows].mean(0)) / wide[rows].std(0)
    reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(
        standard[rows], features.labels[rows]
    )
    expected = reference.decision_function(standard)
    assert trained.scores * trained.scale == pytest.approx(expected, abs=1e-3)


def test_knows_what_is_spread_over_layers() -> None:
    """A label that is the product of nothing in one layer, but the sum of two, is found by their joint probe alone."""
    features = make_features(separation=0.0, n=2000)
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=2000)
    signal = np.where(features.labels, 0.5, -0.5)
    activations = features.activations.clone()
    for column, values in ((0, hidden * 5 + signal), (2, -hidden * 5 + signal)):
        activations[:, column, 0] = activations.new_tensor(values)
    features = replace(features, activations=activations)
    fold = Fold("", features.parts)
    each, joined = (train(Logistic(joined=way), features, fold) for way in (False, True))
    right = [
        ((one.scores > one.threshold) == features.labels)[features.parts == "test"].mean()
        for one in (each, joined)
    ]
    assert right[0] < 0.6
    assert right[1] > 0.95


@pytest.mark.parametrize(
    "probe", [Logistic(), MassMean(), LDA(), KNN(k=5), SAPLMA()], ids=lambda one: type(one).__name__
)
def test_what_is_saved_scores_the_same(probe: ActivationProbe) -> None:
    features = make_features(separation=1.0)
    joined = replace(probe, joined=True)
    trained = train(joined, features, Fold("", features.parts))
    assert isinstance(trained.fitted, FittedJoined)
    saved = SavedProbe(
        "x", trained.fitted.inner, LAYERS[-1], trained.threshold, "statement_end", {}, {}, joined=LAYERS
    )
    again = SavedProbe.from_files(saved.to_files())
    assert again.reads == LAYERS
    assert features.activations.shape[1:] == (len(LAYERS), WIDTH)
    assert again.scores(features.activations) == pytest.approx(trained.scores, abs=1e-9)


@pytest.mark.parametrize("probe", [LDA(joined=True), Mahalanobis(joined=True)], ids=repr)
def test_a_covariance_that_no_memory_holds_is_refused(probe: ActivationProbe) -> None:
    features = make_features(separation=1.0, n=20, width=6667)
    with pytest.raises(ConfigError, match="a covariance of 20001 features takes 3 GB"):
        train(probe, features, Fold("", features.parts))


def test_one_layer_is_joined_with_nothing() -> None:
    features = make_features(separation=1.0)
    one = replace(features, activations=features.activations[:, :1], layers=LAYERS[:1])
    fold = Fold("", features.parts)
    alone, joined = (train(Logistic(joined=way), one, fold) for way in (False, True))
    assert np.array_equal(alone.scores, joined.scores)
    assert not isinstance(joined.fitted, FittedJoined)
