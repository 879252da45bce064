"""The fit of all layers and penalties, as on a CPU and as on a GPU, against scikit-learn, one problem at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probegrid.probes.fitting import newton
from probegrid.probes.fitting.newton import fit_logistic
from probegrid.probes.fitting.newton_batched import fit_batched
from probegrid.probes.fitting.standardization import Standardization

PENALTIES = [1e-4, 1e-2, 1.0, 10.0]


@pytest.fixture(params=["on a CPU", "as on a GPU"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test holds for both ways; the one for a GPU runs on a CPU too."""
    if request.param == "as on a GPU":
        monkeypatch.setattr(newton, "fit_paths", fit_batched)


def activations(layers: int, n: int, width: int, separation: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features with a falling spectrum, standardized; a third of the labels true."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(n, generator=generator) < 1 / 3
    spectrum = torch.arange(1, width + 1) ** -0.5
    mixing = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    x = torch.randn(layers, n, width, generator=generator) * spectrum @ mixing
    x += separation * labels[:, None] * torch.randn(layers, 1, width, generator=generator) / width
    return Standardization.of(x).apply(x), labels


@pytest.mark.filterwarnings("ignore:.*ine [Ss]earch")  # of scikit-learn, at this tolerance
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(
    ("n", "width", "separation"), [(200, 16, 1.0), (80, 300, 1.0), (150, 40, 30.0), (60, 1, 1.0)]
)
def test_equals_sklearn_for_every_layer_and_penalty(
    n: int, width: int, separation: float, balanced: bool
) -> None:
    x, labels = activations(3, n, width, separation)
    weights, biases = fit_logistic(x, labels, PENALTIES, balanced=balanced)
    assert weights.shape == (3, len(PENALTIES), width)
    for layer in range(3):
        for column, penalty in enumerate(PENALTIES):
            reference = LogisticRegression(
                C=penalty,
                solver="newton-cg",
                tol=1e-12,
                max_iter=10_000,
                class_weight="balanced" if balanced else None,
            ).fit(x[layer].double().numpy(), labels.numpy())
            np.testing.assert_allclose(weights[layer, column], reference.coef_[0], atol=1e-4)
            np.testing.assert_allclose(biases[layer, column], reference.intercept_[0], atol=1e-4)


def test_a_layer_does_not_depend_on_its_neighbours() -> None:
    x, labels = activations(3, 100, 20, 1.0)
    together, alone = fit_logistic(x, labels, PENALTIES), fit_logistic(x[1:2], labels, PENALTIES)
    torch.testing.assert_close(together[0][1:2], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1][1:2], alone[1], atol=1e-5, rtol=0)


def test_standardization_folds_back() -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(2, 50, 6, generator=generator) * 30 + 1000
    raw[:, :, 3] = 7.1  # does not vary
    standardization = Standardization.of(raw)
    x = standardization.apply(raw)
    np.testing.assert_allclose(x.mean(dim=1), 0, atol=1e-5)
    np.testing.assert_allclose(
        x.std(dim=1, correction=0), torch.tensor([1, 1, 1, 0, 1, 1.0]).expand(2, 6), atol=1e-5
    )
    weights = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    biases = torch.randn(2, generator=generator, dtype=torch.float64)
    folded, folded_biases = standardization.fold(weights, biases)
    expected = torch.einsum("lnd,ld->ln", x.double(), weights) + biases[:, None]
    found = torch.einsum("lnd,ld->ln", raw.double(), folded) + folded_biases[:, None]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_layer_that_does_not_vary_gets_no_weights_and_spoils_no_other() -> None:
    """Layer 0 at the end of statements that all end alike; with equal classes it begins at its optimum."""
    x, _ = activations(2, 100, 20, 1.0)
    x[0], labels = 0, torch.arange(100) % 2 == 0
    weights, biases = fit_logistic(x, labels, PENALTIES)
    assert not weights[0].any()
    assert not biases[0].any()
    torch.testing.assert_close(weights[1:], fit_logistic(x[1:], labels, PENALTIES)[0], atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.*ine [Ss]earch")  # of scikit-learn, at this tolerance
@pytest.mark.parametrize(("n", "width"), [(100, 300), (300, 100)])
def test_activations_of_few_directions_are_fitted_as_exactly(n: int, width: int) -> None:
    """Three directions: to float32 the matrix of the Newton step is singular at weak penalties."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, n, 3, generator=generator) @ torch.randn(3, width, generator=generator)
    x = Standardization.of(x).apply(x)
    labels = torch.rand(n, generator=generator) < 0.4
    penalties = [1e-3, 1.0, 1e4]
    weights, _ = fit_logistic(x, labels, penalties)
    for column, penalty in enumerate(penalties):
        reference = LogisticRegression(C=penalty, solver="newton-cg", tol=1e-12, max_iter=10_000)
        reference.fit(x[0].double().numpy(), labels.numpy())
        np.testing.assert_allclose(weights[0, column], reference.coef_[0], atol=1e-4)


def test_penalties_come_back_in_the_order_they_were_given() -> None:
    x, labels = activations(2, 80, 30, 1.0)
    mixed, sorted_ = (
        fit_logistic(x, labels, [1.0, 1e-4, 1.0, 1e-2]),
        fit_logistic(x, labels, [1e-4, 1e-2, 1.0]),
    )
    for column, same in enumerate([2, 0, 2, 1]):
        torch.testing.assert_close(mixed[0][:, column], sorted_[0][:, same], atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed[1][:, column], sorted_[1][:, same], atol=1e-5, rtol=0)
