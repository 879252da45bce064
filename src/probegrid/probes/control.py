"""Control: a logistic probe that learned random labels, one a text (Hewitt & Liang 2019, arXiv 1909.03368).

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
    """The logistic probe, fitted on a random label a text, the same wherever the text recurs."""

    def fit(self, features: Features) -> FittedProbe:
        """Fit as the logistic probe, on random labels."""
        return super().fit(features.with_shuffled_labels(self.seed))
