"""The contract that any activation probe must pass, and activations with a known direction in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from probegrid.probes import ActivationProbe
from probegrid.probes.fitting.features import Features
from probegrid.probes.saved import SavedProbe
from probegrid.testing import probes as contracts
from probegrid.testing.probes import LAYERS, WIDTH, check_learns, make_features

CheckProbe = Callable[[ActivationProbe], None]


@pytest.fixture(name="make_features")
def make_features_fixture() -> Callable[..., Features]:
    """`make_features`, for the tests."""
    return make_features


@pytest.fixture
def check_probe() -> CheckProbe:
    """Hold one of our probes on activations to its public contract, and to what is known of a direction a layer."""

    def check(probe: ActivationProbe) -> None:
        contracts.check_probe(probe)
        check_learns(probe)
        features = make_features(separation=2.0)
        check_fit(probe, features)
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
