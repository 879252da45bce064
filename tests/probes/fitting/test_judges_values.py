"""The formulas of hidden-state judges against worked values, scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.decomposition
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from probegrid.probes.fitting.class_means import mean_difference, whitened
from probegrid.probes.fitting.features import Features
from probegrid.probes.fitting.gaussian import Gaussian
from probegrid.probes.fitting.neighbours import FittedNeighbours
from probegrid.probes.fitting.network import FittedNetwork, logits, train_network
from probegrid.probes.fitting.principal import first_component, truth_directions
from probegrid.probes.knn import KNN
from probegrid.probes.lda import LDA
from probegrid.probes.mahalanobis import Away, Mahalanobis
from probegrid.probes.saved import SavedProbe
from probegrid.probes.sep import best_split
from probegrid.probes.ttpd import TTPD
from probegrid.testing.probes import make_features

TRUE = torch.tensor([[2, 1], [3, 1.5], [2.5, 0.5]], dtype=torch.float64)
FALSE = torch.tensor([[0, 1], [0.5, 2], [-0.5, 0.2]], dtype=torch.float64)
X = torch.cat([TRUE, FALSE])
LABELS = torch.tensor([True] * 3 + [False] * 3)
AT = torch.tensor([[1.0, 1.0]], dtype=torch.float64)


def near(*values: float) -> object:
    return pytest.approx(values if len(values) > 1 else values[0], abs=2e-6)


def of_train(x: torch.Tensor, labels: torch.Tensor, **more: object) -> Features:
    parts = np.array(["train"] * len(x))
    return Features(x[:, None].float(), (0,), labels.numpy(), parts, **more)  # type: ignore[arg-type]


def test_c1_split_of_entropies() -> None:
    entropies = np.array([0, 0, 0.3, 0.5, 0.7, 1.2, 1.5, 1.6, 2])
    split = best_split(entropies)
    assert split == near(0.707071)
    sides = entropies[entropies < split], entropies[entropies >= split]
    assert sum(((side - side.mean()) ** 2).sum() for side in sides) == near(0.7075)


def test_c2_difference_of_means() -> None:
    assert tuple(mean_difference(X, LABELS).tolist()) == near(2.5, -0.066667)
    assert tuple(whitened(X, LABELS).tolist()) == near(40.240415, -21.948187)


def test_c4_discriminant_with_degrees_of_freedom() -> None:
    true, false = Mahalanobis(away=Away.false, ridge=0.0).gaussians(X, LABELS)
    assert false is not None
    weights = true.precision @ (true.mean - false.mean)
    assert tuple(weights.tolist()) == near(26.826943, -14.632124)
    assert float(-weights @ (true.mean + false.mean) / 2) == near(-18.413817)


@pytest.mark.parametrize("shrink", [False, True])
def test_c3_lda_is_scikit_learns(shrink: bool) -> None:
    fitted = LDA(shrink=shrink).fit(of_train(X, LABELS))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto" if shrink else None).fit(X, LABELS)
    weights = fitted.directions[0].double() * fitted.scales[0]
    assert tuple(weights.tolist()) == pytest.approx(reference.coef_[0], rel=1e-5)
    assert float(fitted.biases[0] * fitted.scales[0]) == pytest.approx(reference.intercept_[0], rel=1e-6)
    if not shrink:
        assert tuple(weights.tolist()) == pytest.approx((40.240415, -21.948187), rel=1e-5)
        assert float(fitted.biases[0] * fitted.scales[0]) == pytest.approx(-27.620725, rel=1e-5)


def test_c5_first_component_is_scikit_learns() -> None:
    direction = first_component(X, LABELS)
    assert tuple(direction.tolist()) == near(0.994226, 0.107306)
    assert float(((X - X.mean(0)) @ direction).var()) == near(2.094427)
    wide = torch.randn(8, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(8) % 2 == 0
    reference = sklearn.decomposition.PCA(1).fit(wide.numpy()).components_[0]
    assert abs(float(first_component(wide, labels) @ torch.from_numpy(reference))) == near(1)


def test_c6_truth_directions() -> None:
    polarities = torch.tensor([1.0, 1, -1, 1, -1, -1], dtype=torch.float64)
    general, sensitive = truth_directions(X, LABELS, polarities, ["one"] * 6)
    assert tuple(general.tolist()) == near(1.25, -0.033333)
    assert tuple(sensitive.tolist()) == near(0, 0.188889)
    general, sensitive = truth_directions(X, LABELS, torch.zeros(6).double(), ["one"] * 6)
    assert tuple(general.tolist()) == near(1.25, -0.033333)
    assert not sensitive.any()


def test_ttpd_is_logistic_regression_on_the_two_projections() -> None:
    features = make_features(separation=1.0, n=400, width=4)
    fitted = TTPD().fit(features)
    rows = features.parts == "train"
    x, labels = features.activations[torch.from_numpy(rows)].double(), features.labels[rows]
    sources = [name for name, kept in zip(features.sources, rows, strict=True) if kept]
    affirmed = np.array([not name.startswith("neg_") for name in sources])
    for column in range(x.shape[1]):
        layer = x[:, column]
        signs = torch.from_numpy(affirmed).double() * 2 - 1
        general, _ = truth_directions(layer, torch.from_numpy(labels), signs, sources)
        polarity = LogisticRegression(C=np.inf, max_iter=10_000, tol=1e-10).fit(layer, affirmed).coef_[0]
        projected = layer.numpy() @ np.stack([general.numpy(), polarity], 1)
        reference = LogisticRegression(C=np.inf, max_iter=10_000, tol=1e-10).fit(projected, labels)
        expected = reference.predict_proba(projected)[:, 1]
        found = fitted.probabilities(fitted.scores(features.activations))[rows, column]
        assert found == pytest.approx(expected, abs=0.01)


def test_c8_mahalanobis_distances() -> None:
    near_true, everything = Gaussian.of(TRUE, 1e-3), Gaussian.of(X, 1e-3)
    squares = [float(each.squares(AT)) for each in (near_true, everything)]
    assert [root**0.5 for root in squares] == [near(3.452621), near(0.174458)]
    assert squares[0] - squares[1] == near(11.890157)
    assert squares[0] ** 0.5 - squares[1] ** 0.5 == near(3.278163)
    covariance = np.cov(TRUE.numpy().T) + 1e-3 * np.eye(2)
    assert squares[0] ** 0.5 == near(mahalanobis(AT[0], TRUE.mean(0), np.linalg.inv(covariance)))
    fitted = Mahalanobis(ridge=1e-3).fit(of_train(X, LABELS))
    assert float(fitted.raw(0, AT)) == near(-11.890157)


def test_c10_two_classes() -> None:
    probe = Mahalanobis(away=Away.false, ridge=1e-3)
    true, false = probe.gaussians(X, LABELS)
    assert false is not None
    assert float(true.squares(AT)) == near(23.480165)
    assert float(false.squares(AT)) == near(11.208483)
    assert float(probe.fit(of_train(X, LABELS)).raw(0, AT)) == near(-6.135841)


def test_c9_neighbours() -> None:
    fitted = KNN(k=3, normalize=False).fit(of_train(X, LABELS))
    assert float(fitted.raw(0, AT)) == near(0.333333)
    distances = FittedNeighbours((0,), torch.ones(1), (X.float(),), LABELS, 3, False, False, torch.zeros(1))
    assert float(distances.raw(0, AT)) == near(-1.118034)
    features = make_features(separation=1.0)
    probe = KNN(k=7)
    rows = torch.from_numpy(features.parts == "train")
    x = torch.nn.functional.normalize(features.activations[:, 1].double(), dim=1).numpy()
    reference = KNeighborsClassifier(7).fit(x[rows], features.labels[rows]).predict_proba(x)[:, 1]
    fitted = probe.fit(features)
    assert fitted.raw(1, features.activations[:, 1].double()).numpy() == pytest.approx(reference)


def test_a_network_is_scikit_learns_where_it_is_given_its_weights() -> None:
    features = make_features(separation=2.0)
    x = features.activations[:, 0]
    reference = MLPClassifier((256, 128, 64), max_iter=2, random_state=0)
    with pytest.warns(match="Maximum iterations"):
        reference.fit(x.numpy(), features.labels)
    weights = [torch.from_numpy(each.T).double() for each in reference.coefs_]
    biases = [torch.from_numpy(each).double() for each in reference.intercepts_]
    expected = reference.predict_proba(x.numpy())[:, 1]
    assert torch.sigmoid(logits(x.double(), weights, biases)).numpy() == pytest.approx(expected, abs=1e-5)
    with pytest.warns(match="Maximum iterations"):
        few = MLPClassifier((256, 128, 64), max_iter=30, batch_size=32, alpha=0, random_state=0)
        few.fit(x.numpy(), features.labels)
    own_weights, own_biases = train_network(x, torch.from_numpy(features.labels), epochs=30, seed=0)
    right = ((logits(x, own_weights, own_biases) > 0).numpy() == features.labels).mean()
    assert right == pytest.approx(few.score(x.numpy(), features.labels), abs=0.05)
    kept = FittedNetwork((0,), torch.ones(1), (tuple(own_weights),), (tuple(own_biases),))
    assert kept.scores_at(0, x) == pytest.approx(
        logits(x, own_weights, own_biases).numpy(), rel=1e-4, abs=1e-4
    )


@pytest.mark.parametrize(
    "probe",
    [KNN(k=5), KNN(labelled=False), Mahalanobis(), Mahalanobis(away=Away.nothing), LDA(), TTPD()],
    ids=repr,
)
def test_what_is_saved_scores_the_same(probe: KNN) -> None:
    features = make_features(separation=1.0)
    fitted = probe.fit(features)
    saved = SavedProbe("x", fitted, 3, 0.25, "statement_end", {"path": "tiny"}, {"auroc": 0.9})
    again = SavedProbe.from_files(saved.to_files())
    x = features.activations[:, 1]
    scores = again.scores(x)
    assert scores == pytest.approx(fitted.scores_at(3, x), abs=1e-9)
    assert again.probabilities(scores) == pytest.approx(fitted.probabilities_at(3, fitted.scores_at(3, x)))
