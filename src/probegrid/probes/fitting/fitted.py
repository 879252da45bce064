"""A fitted probe: one a layer, on raw activations; a direction, or whatever scores a vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from probegrid.evaluation.checks import FloatArray
from probegrid.probes.fitting.features import Features


@dataclass(frozen=True)
class TrainingHistory:
    """The course of a training by gradient descent.

    Attributes:
        train_loss: float64[epochs, l], mean over the batches of an epoch, in nats; `nan` after a layer stopped early.
        val_loss: float64[epochs, l], likewise, after the epoch.
    """

    train_loss: FloatArray
    val_loss: FloatArray


class FittedByLayer(ABC):
    """Scores raw activations by each of some layers; ``p(true) = sigmoid(scale * score)``.

    Attributes:
        layers: the l layers.
        scales: float64[l], positive.
        column: which of them is to be used, where the probe has chosen itself; None: by its AUROC on validation.
        notes: what the user should know of how it was fitted.
    """

    kind: ClassVar[str]
    """What it is called where it is saved."""
    threshold: ClassVar[float | None] = None  # chosen on validation
    layers: tuple[int, ...]
    scales: Tensor
    column: int | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def values(self, row: int, activations: Tensor) -> Tensor:
        """Score activations float64[n, d] by the layer of this row: float64[n], on their device."""

    @abstractmethod
    def to_tensors(self, layer: int) -> dict[str, Tensor]:
        """What one that scores this layer is made of, besides its scale."""

    @classmethod
    @abstractmethod
    def of_tensors(cls, layers: tuple[int, ...], scales: Tensor, tensors: Mapping[str, Tensor]) -> Self:
        """What `to_tensors` returned, as a probe again.

        Raises:
            KeyError: a tensor is missing.
        """

    def score(self, features: Features) -> FloatArray:
        """Score the n examples by every layer: float64[n, l]."""
        return self.scores(features.activations, features.texts)

    def scores(self, activations: Tensor, texts: Sequence[str] = ()) -> FloatArray:
        """Score raw activations float[n, l, d]: float64[n, l], larger where true is more likely.

        Computed in float64, so that a score does not depend on the examples it is computed with.

        Args:
            activations: of n examples.
            texts: what they say, for a probe that holds statements against their negations; empty: not known.
        """
        columns = (self.scores_at(layer, activations[:, row], texts) for row, layer in enumerate(self.layers))
        return np.stack(list(columns), axis=1)

    def scores_at(self, layer: int, activations: Tensor, texts: Sequence[str] = ()) -> FloatArray:
        """Score raw activations float[n, d] of one of the layers: float64[n]."""
        found = self.values_of(self.layers.index(layer), activations.double(), texts)
        scores: FloatArray = found.cpu().numpy()
        return scores

    def values_of(self, row: int, activations: Tensor, texts: Sequence[str]) -> Tensor:
        """As `values`, of examples whose texts may be known; they do not matter to most."""
        return self.values(row, activations)

    def probabilities(self, scores: FloatArray) -> FloatArray:
        """Probability of true for scores float64[n, l]: float64[n, l]."""
        probabilities: FloatArray = expit(scores * self.scales.numpy())
        return probabilities

    def probabilities_at(self, layer: int, scores: FloatArray) -> FloatArray:
        """Probability of true for scores float64[n] of one of the layers: float64[n]."""
        probabilities: FloatArray = expit(scores * self.scales[self.layers.index(layer)].item())
        return probabilities


@dataclass(frozen=True)
class FittedProbe(FittedByLayer):
    """A linear probe of every layer: ``score = x @ direction + bias``, ``p(true) = sigmoid(scale * score)``.

    Attributes:
        layers: the l layers, a row each.
        directions: float32[l, d], of unit norm; zero where a layer says nothing of the labels.
        biases: float64[l], in units of the activations.
        scales: float64[l], positive.
        penalties: the inverse strength of the regularization chosen for each layer (``C``); `None` where none is.
        history: of a training by gradient descent; `None` where there was none.
    """

    kind: ClassVar[str] = "linear"
    layers: tuple[int, ...]
    directions: Tensor
    biases: Tensor
    scales: Tensor
    penalties: tuple[float | None, ...]
    history: TrainingHistory | None = None
    column: int | None = None

    @classmethod
    def of_weights(
        cls,
        layers: tuple[int, ...],
        weights: Tensor,
        biases: Tensor,
        penalties: Sequence[float] | None = None,
        history: TrainingHistory | None = None,
    ) -> FittedProbe:
        """Scale logistic weights to unit directions.

        Args:
            layers: the l layers.
            weights: float64[l, d], so that ``x @ weights + biases`` is the log-odds of true.
            biases: float64[l].
            penalties: of each layer.
            history: of the training.
        """
        norms = weights.norm(dim=1)
        scales = torch.where(norms > 0, norms, 1.0)
        directions = (weights / scales[:, None]).float().cpu()
        chosen = tuple(penalties) if penalties is not None else (None,) * len(layers)
        return cls(layers, directions, (biases / scales).cpu(), scales.cpu(), chosen, history)

    def values(self, row: int, activations: Tensor) -> Tensor:
        """As `FittedByLayer`."""
        direction = self.directions[row].to(activations.device, torch.float64)
        return activations @ direction + self.biases[row].to(activations.device)

    def to_tensors(self, layer: int) -> dict[str, Tensor]:
        """Those of all layers: ``weights`` float32[layers, d] (unit norm), ``bias`` float64[layers]."""
        return {"weights": self.directions.contiguous(), "bias": self.biases.contiguous()}

    @classmethod
    def of_tensors(
        cls, layers: tuple[int, ...], scales: Tensor, tensors: Mapping[str, Tensor]
    ) -> FittedProbe:
        """As `FittedByLayer`; the penalties are not known."""
        return cls(layers, tensors["weights"], tensors["bias"], scales, (None,) * len(layers))
