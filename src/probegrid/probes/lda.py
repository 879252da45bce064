"""Linear discriminant analysis: the difference of the class means through the inverse of their common covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.probes.base import ActivationProbe

if TYPE_CHECKING:
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe


@dataclass
class LDA(ActivationProbe):
    """``S^-1 (mean of the true - mean of the false)``, the bias from the classes' shares; scikit-learn's ``lsqr``."""

    shrink: bool = True
    """Shrink the covariance by Ledoit & Wolf (2004), without which it is singular where there are more features than
    examples."""

    def fit(self, features: Features) -> FittedProbe:
        """Fit on the train split; nothing is chosen."""
        import numpy as np
        import torch
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        from probegrid.evaluation.splits import TRAIN
        from probegrid.probes.fitting.fitted import FittedProbe
        from probegrid.probes.fitting.gaussian import check_width

        check_width(features.activations.shape[-1])
        weights, biases = [], []
        for x in features.activations_of(TRAIN):
            fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto" if self.shrink else None)
            fitted.fit(x.double().cpu().numpy(), features.labels_of(TRAIN))
            weights.append(fitted.coef_[0])
            biases.append(fitted.intercept_[0])
        return FittedProbe.of_weights(
            features.layers, torch.from_numpy(np.stack(weights)), torch.tensor(biases, dtype=torch.float64)
        )
