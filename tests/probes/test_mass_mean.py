"""The mass-mean direction against its definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from probegrid.evaluation.splits import TRAIN
from probegrid.probes.fitting.class_means import mean_difference, whitened
from probegrid.probes.fitting.features import Features
from probegrid.probes.mass_mean import MassMean


def test_direction_bias_and_scale(make_features: Callable[..., Features]) -> None:
    features = make_features(separation=1.0)
    fitted = MassMean().fit(features)
    train, labels = features.activations_of(TRAIN)[1].numpy(), features.labels_of(TRAIN)
    difference = train[labels].mean(axis=0) - train[~labels].mean(axis=0)
    np.testing.assert_allclose(fitted.directions[1], difference / np.linalg.norm(difference), atol=1e-4)
    projection = train.astype(np.float64) @ fitted.directions[1].double().numpy()
    spread = projection.std()
    reference = LogisticRegression(tol=1e-10).fit((projection / spread)[:, None], labels)
    np.testing.assert_allclose(fitted.scales[1], reference.coef_[0, 0] / spread, rtol=1e-3)
    np.testing.assert_allclose(fitted.biases[1] * fitted.scales[1], reference.intercept_[0], rtol=1e-3)


def test_whitening_is_linear_discriminant_analysis() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 3 == 0
    x = torch.randn(200, 8, dtype=torch.float64, generator=generator) @ torch.randn(
        8, 8, dtype=torch.float64, generator=generator
    ) + labels[:, None] * torch.linspace(-1, 1, 8)
    reference = LinearDiscriminantAnalysis(solver="svd").fit(x.numpy(), labels.numpy()).coef_[0]
    found = whitened(x, labels).numpy()
    cosine = found @ reference / np.linalg.norm(found) / np.linalg.norm(reference)
    assert cosine == pytest.approx(1, abs=1e-9)


def test_whitening_with_more_features_than_examples() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(30) % 2 == 0
    x = torch.randn(30, 50, dtype=torch.float64, generator=generator)
    centered = torch.where(labels[:, None], x - x[labels].mean(0), x - x[~labels].mean(0))
    expected = torch.linalg.pinv(centered.T @ centered / 30, hermitian=True) @ mean_difference(x, labels)
    torch.testing.assert_close(whitened(x, labels), expected, rtol=1e-8, atol=1e-10)
