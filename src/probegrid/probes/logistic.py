"""Logistic regression on activations, one a layer, with an L2 penalty chosen on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError
from probegrid.probes.base import ActivationProbe
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from torch import Tensor

    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe
    from probegrid.probes.fitting.standardization import Standardization

    Labelled = tuple[Tensor, Tensor]


class ClassWeight(Enum):
    """How much an example counts in the loss."""

    none = "none"
    """All alike."""
    balanced = "balanced"
    """Inversely to the size of its class."""


class Optimizer(Enum):
    """How the weights are found."""

    newton = "newton"
    """The exact optimum for every penalty in ``C``, the best of which is kept for each layer."""
    adam = "adam"
    """The trainer of probity, for parity: no ``C``, its own class weights, early stopping, losses an epoch."""


@dataclass
class Logistic(ActivationProbe):
    """L2-penalized logistic regression on activations standardized by the train split."""

    optimizer: Optimizer = Optimizer.newton
    """``newton`` or ``adam``."""
    C: list[float] = number_field(
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0], above=0, least=1e-12, most=1e12, hint="give, for example, [0.01,1]"
    )
    """Inverse strengths of the penalty that are tried, as scikit-learn's ``C``; the best validation AUROC wins, and
    the lower log-loss where two are equal. Read by ``newton`` alone."""
    class_weight: ClassWeight = ClassWeight.none
    """``none`` or ``balanced``; read by ``newton`` alone."""
    epochs: int = number_field(10, least=1, most=10**6, below="trains nothing")
    """Most passes over the train split; read by ``adam`` alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.C:
            raise ConfigError("probe.C=[] leaves nothing to try; give, for example, [0.01,1].")

    def fit(self, features: Features) -> FittedProbe:
        """Fit all layers, and all penalties, in one computation on the activations' device."""
        import torch

        from probegrid.evaluation.splits import TRAIN, VALIDATION
        from probegrid.probes.fitting.standardization import Standardization

        standardization = Standardization.of(features.activations_of(TRAIN))
        train, validation = (
            (
                standardization.apply(features.activations_of(part)),
                torch.from_numpy(features.labels_of(part)),
            )
            for part in (TRAIN, VALIDATION)
        )
        fit = self._fit_adam if self.optimizer is Optimizer.adam else self._fit_newton
        return fit(features.layers, standardization, train, validation)

    def _fit_newton(
        self, layers: tuple[int, ...], standardization: Standardization, train: Labelled, validation: Labelled
    ) -> FittedProbe:
        import torch

        from probegrid.evaluation.selection import best_column
        from probegrid.probes.fitting.fitted import FittedProbe
        from probegrid.probes.fitting.newton import fit_logistic

        balanced = self.class_weight is ClassWeight.balanced
        weights, biases = fit_logistic(*train, self.C, balanced=balanced)
        log_odds = torch.einsum("lnd,lkd->lnk", validation[0], weights.float()) + biases.float()[:, None]
        labels = validation[1].numpy()
        chosen = [best_column(labels, layer) for layer in log_odds.double().cpu().numpy()]
        rows = torch.arange(len(layers)), torch.tensor(chosen)
        raw = standardization.fold(weights[rows], biases[rows])
        return FittedProbe.of_weights(layers, *raw, penalties=[self.C[column] for column in chosen])

    def _fit_adam(
        self, layers: tuple[int, ...], standardization: Standardization, train: Labelled, validation: Labelled
    ) -> FittedProbe:
        from probegrid.probes.fitting.adam import train_adam
        from probegrid.probes.fitting.fitted import FittedProbe

        weights, biases, history = train_adam(train, validation, epochs=self.epochs, seed=self.seed)
        return FittedProbe.of_weights(layers, *standardization.fold(weights, biases), history=history)
