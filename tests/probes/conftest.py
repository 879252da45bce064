"""The contract that any activation probe must pass, and activations with a known direction in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from probegrid.evaluation.ranking import auroc
from probegrid.evaluation.splits import TEST, TRAIN, VALIDATION
from probegrid.probes import ActivationProbe
from probegrid.probes.fitting.features import Features
from probegrid.probes.saved import SavedProbe

CheckProbe = Callable[[ActivationProbe], None]
LAYERS = (0, 3, 7)
WIDTH = 12


def make_features(separation: float, *, n: int = 300, width: int = WIDTH, seed: int = 0) -> Features:
    """Activations of unequal scales far from 0, with the classes `separation` standard deviations apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2 == 0
    noise = torch.randn(n, len(LAYERS), width, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(len(LAYERS), width, generator=generator), dim=-1)
    signs = labels.float() * 2 - 1
    activations = noise + separation / 2 * signs[:, None, None] * direction
    scales = torch.logspace(-0.5, 0.5, width)
    parts = np.array([TRAIN, TRAIN, TRAIN, VALIDATION, TEST])[np.arange(n) // 2 % 5]
    return Features(activations * scales + 20 * scales, LAYERS, labels.numpy(), parts)


@pytest.fixture(name="make_features")
def make_features_fixture() -> Callable[..., Features]:
    """`make_features`, for the tests."""
    return make_features


@pytest.fixture
def check_probe() -> CheckProbe:
    """Hold a probe to what every activation probe promises."""

    def check(probe: ActivationProbe) -> None:
        features = make_features(separation=2.0)
        check_fit(probe, features)
        check_ignores_test_rows(probe, features)
        check_learns(probe)
        check_saves(probe, features)

    return check


def check_fit(probe: ActivationProbe, features: Features) -> None:
    """Deterministic, of unit norm, and indifferent to the origin and the unit of the activations."""
    fitted, again = probe.fit(features), probe.fit(features)
    assert torch.equal(fitted.directions, again.directions)
    assert torch.equal(fitted.biases, again.biases)
    assert fitted.layers == LAYERS
    assert fitted.directions.shape == (len(LAYERS), WIDTH)
    assert fitted.directions.dtype == torch.float32
    assert (fitted.scales > 0).all()
    torch.testing.assert_close(fitted.directions.norm(dim=1), torch.ones(len(LAYERS)))
    moved = replace(features, activations=features.activations * 4 - 100)
    elsewhere = probe.fit(moved).probabilities(probe.fit(moved).scores(moved.activations))
    here = fitted.probabilities(fitted.scores(features.activations))
    np.testing.assert_allclose(elsewhere, here, atol=2e-4)
    alone = fitted.scores_at(LAYERS[1], features.activations[:1, 1])
    np.testing.assert_array_equal(alone, fitted.scores(features.activations)[:1, 1])


def check_ignores_test_rows(probe: ActivationProbe, features: Features) -> None:
    """Other activations and labels of the test split change nothing in the fit."""
    test = features.parts == TEST
    activations = features.activations.clone()
    activations[torch.from_numpy(test)] = -777.0
    other = probe.fit(replace(features, activations=activations, labels=features.labels ^ test))
    fitted = probe.fit(features)
    assert torch.equal(fitted.directions, other.directions)
    assert torch.equal(fitted.biases, other.biases)
    assert torch.equal(fitted.scales, other.scales)
    assert fitted.penalties == other.penalties


def check_learns(probe: ActivationProbe) -> None:
    """Classes far apart are told apart, with true above false; shuffled labels cannot be learned."""
    assert min(aurocs_on_test(probe, make_features(separation=20.0))) == 1.0
    shuffled = make_features(separation=0.0, n=2000).with_shuffled_labels(1)
    assert np.abs(np.array(aurocs_on_test(probe, shuffled)) - 0.5).max() < 0.1


def check_saves(probe: ActivationProbe, features: Features) -> None:
    """A probe that was saved and loaded gives equal scores."""
    fitted = probe.fit(features)
    saved = SavedProbe(
        type(probe).__name__, fitted, LAYERS[1], 0.5, "last", {"path": "tiny"}, {"auroc": 0.9, "f1": np.nan}
    )
    files = saved.to_files()
    loaded = SavedProbe.from_files(files)
    activations = features.activations[:, 1]
    np.testing.assert_array_equal(loaded.scores(activations), fitted.scores(features.activations)[:, 1])
    np.testing.assert_array_equal(
        loaded.probabilities(loaded.scores(activations)),
        fitted.probabilities(fitted.scores(features.activations))[:, 1],
    )
    assert loaded.to_files() == files


def aurocs_on_test(probe: ActivationProbe, features: Features) -> list[float]:
    """AUROC on the test split of each layer."""
    test = features.parts == TEST
    scores = probe.fit(features).scores(features.activations)[test]
    return [auroc(features.labels[test], column) for column in scores.T]
