"""Control: a logistic probe that learned shuffled labels (Hewitt & Liang 2019, arXiv 1909.03368).

What it scores above chance on the true labels, if anything, is not what the labels mean. The difference of a probe and
its control is its selectivity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.probes.logistic import Logistic

if TYPE_CHECKING:
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe


@dataclass
class Control(Logistic):
    """The logistic probe, fitted on labels permuted within each split, so that each keeps its counts."""

    def fit(self, features: Features) -> FittedProbe:
        """Fit as the logistic probe, on shuffled labels."""
        return super().fit(features.with_shuffled_labels(self.seed))
