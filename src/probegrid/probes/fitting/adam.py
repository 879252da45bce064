"""The trainer of probity (github.com/curt-tigges/probity, ``training/trainer.py``), for all layers at once.

Adam at 1e-3 with weight decay 0.01 added to the gradient, batches of 32 in a new order each epoch, the loss of the
positive class weighted by negatives / positives, zero initialization, a learning rate that falls exponentially to
1e-5 over the epochs. A layer stops once its validation loss has not fallen by 1e-4 for 5 epochs, and keeps its last
weights, as there. Every step of Adam is element by element, so that layers trained together and alone are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from probegrid.evaluation.checks import FloatArray
from probegrid.probes.fitting.fitted import TrainingHistory

LEARNING_RATE, END_LEARNING_RATE = 1e-3, 1e-5
BATCH_SIZE = 32
WEIGHT_DECAY = 0.01
PATIENCE, MIN_DELTA = 5, 1e-4


def train_adam(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], *, epochs: int, seed: int
) -> tuple[Tensor, Tensor, TrainingHistory]:
    """Train a logistic probe a layer.

    Args:
        train: standardized activations float32[l, n, d], and labels bool[n] with both values among them.
        validation: likewise, for the early stopping.
        epochs: at most this many passes.
        seed: of the order of the examples alone, at least 0.

    Returns:
        Weights float64[l, d], biases float64[l], and the losses of each epoch.
    """
    x, labels = train[0], train[1].to(train[0].device)
    layers, _, width = x.shape
    weights = torch.zeros(layers, width, device=x.device, requires_grad=True)
    biases = torch.zeros(layers, device=x.device, requires_grad=True)
    optimizer = torch.optim.Adam((weights, biases), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    decay = (END_LEARNING_RATE / LEARNING_RATE) ** (1 / epochs)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=decay)
    pos_weight = (~labels).sum() / labels.sum()
    generator = torch.Generator().manual_seed(seed)
    stopping = _EarlyStopping(weights, biases)
    train_losses: list[FloatArray] = []
    val_losses: list[FloatArray] = []
    while len(train_losses) < epochs and stopping.running.any():
        order = torch.randperm(len(labels), generator=generator).to(x.device)
        batch_losses = []
        for rows in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            losses = _losses(x[:, rows], labels[rows], weights, biases, pos_weight)
            losses.sum().backward()
            optimizer.step()
            batch_losses.append(losses.detach())
        with torch.no_grad():
            held_out = [_losses(*batch, weights, biases, pos_weight) for batch in _batches(*validation)]
        train_loss, val_loss = torch.stack(batch_losses).mean(0), torch.stack(held_out).mean(0)
        train_losses.append(_only(stopping.running, train_loss))
        val_losses.append(_only(stopping.running, val_loss))
        stopping.update(val_loss)
        scheduler.step()
    history = TrainingHistory(np.stack(train_losses), np.stack(val_losses))
    return stopping.weights.double(), stopping.biases.double(), history


class _EarlyStopping:
    """Keeps the weights of each layer as they were when it stopped."""

    def __init__(self, weights: Tensor, biases: Tensor) -> None:
        self._current = weights, biases
        self.weights, self.biases = weights.detach().clone(), biases.detach().clone()
        self.running = torch.ones_like(self.biases, dtype=torch.bool)
        self._best = torch.full_like(self.biases, torch.inf)
        self._waited = torch.zeros_like(self.biases, dtype=torch.int64)

    def update(self, val_loss: Tensor) -> None:
        """Take the weights of the layers that still run, and stop those that have not improved for long."""
        weights, biases = (tensor.detach() for tensor in self._current)
        self.weights = torch.where(self.running[:, None], weights, self.weights)
        self.biases = torch.where(self.running, biases, self.biases)
        improved = val_loss < self._best - MIN_DELTA
        self._best = torch.where(improved, val_loss, self._best)
        self._waited = torch.where(improved, 0, self._waited + 1)
        self.running = self.running & (self._waited < PATIENCE)


def _batches(x: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x.split(BATCH_SIZE, dim=1), labels.to(x.device).split(BATCH_SIZE), strict=True)


def _losses(x: Tensor, labels: Tensor, weights: Tensor, biases: Tensor, pos_weight: Tensor) -> Tensor:
    """Mean weighted cross entropy of each layer on a batch: float32[l]."""
    logits = torch.einsum("lnd,ld->ln", x, weights) + biases[:, None]
    targets = labels.to(logits.dtype).expand_as(logits)
    return binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none").mean(
        dim=1
    )


def _only(running: Tensor, losses: Tensor) -> FloatArray:
    """Losses of the layers that still run, `nan` for the others: float64[l]."""
    return torch.where(running, losses, torch.nan).double().cpu().numpy()
