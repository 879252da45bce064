"""Probity's trainer against a plain loop over one layer, written from its description."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from probegrid.probes.fitting.adam import train_adam
from probegrid.probes.fitting.features import Features
from probegrid.probes.logistic import Logistic, Optimizer


def plain_trainer(
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    epochs: int,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[float, float]]]:
    """One layer, with torch's own parts: `Linear`, `BCEWithLogitsLoss`, `Adam`, `ExponentialLR`."""
    (x, y), (x_val, y_val) = ((a, b.float()[:, None]) for a, b in (train, validation))
    model = nn.Linear(x.shape[1], 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    loss_fn = nn.BCEWithLogitsLoss(pos_weight=(len(y) - y.sum()) / y.sum())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.01)
    gamma = math.exp(math.log(1e-5 / 1e-3) / epochs)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    generator = torch.Generator().manual_seed(seed)
    history: list[tuple[float, float]] = []
    best, waited = math.inf, 0
    for _ in range(epochs):
        batches = torch.randperm(len(x), generator=generator).split(32)
        train_loss = 0.0
        for rows in batches:
            optimizer.zero_grad()
            loss = loss_fn(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            train_loss += loss.item() / len(batches)
        with torch.no_grad():
            held_out = [
                loss_fn(model(a), b).item() for a, b in zip(x_val.split(32), y_val.split(32), strict=True)
            ]
        val_loss = sum(held_out) / len(held_out)
        history.append((train_loss, val_loss))
        if val_loss < best - 1e-4:
            best, waited = val_loss, 0
        else:
            waited += 1
        if waited >= 5:
            break
        scheduler.step()
    return model.weight.detach()[0], model.bias.detach()[0], history


@pytest.mark.parametrize(("separation", "epochs", "stops_early"), [(2.0, 12, False), (0.2, 40, True)])
def test_equals_a_plain_loop_layer_by_layer(separation: float, epochs: int, stops_early: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(230, generator=generator) < 0.3
    x = torch.randn(3, 230, 16, generator=generator) + separation * labels[:, None] * torch.linspace(
        -1, 1, 16
    )
    x[1] = torch.randn(230, 16, generator=generator)  # nothing to learn: stops early
    train, validation = (x[:, :150], labels[:150]), (x[:, 150:], labels[150:])
    weights, biases, history = train_adam(train, validation, epochs=epochs, seed=5)
    lengths = []
    for layer in range(3):
        weight, bias, losses = plain_trainer(
            (train[0][layer], train[1]), (validation[0][layer], validation[1]), epochs, seed=5
        )
        torch.testing.assert_close(weights[layer], weight.double(), atol=1e-6, rtol=0)
        torch.testing.assert_close(biases[layer], bias.double(), atol=1e-6, rtol=0)
        np.testing.assert_allclose(
            history.train_loss[: len(losses), layer], [a for a, _ in losses], atol=1e-6
        )
        np.testing.assert_allclose(history.val_loss[: len(losses), layer], [b for _, b in losses], atol=1e-6)
        assert np.isnan(history.val_loss[len(losses) :, layer]).all()
        lengths.append(len(losses))
    assert (min(lengths) < epochs) is stops_early


def test_the_probe_keeps_its_history(make_features: Callable[..., Features]) -> None:
    features = make_features(separation=2.0)
    history = Logistic(optimizer=Optimizer.adam, epochs=6).fit(features).history
    assert history is not None
    assert history.train_loss.shape == history.val_loss.shape == (6, 3)
    assert (history.train_loss[-1] < history.train_loss[0]).all()
    assert Logistic().fit(features).history is None
