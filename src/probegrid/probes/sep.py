"""Semantic entropy probe: reads from a hidden state how widely samples would differ (Kossen et al. 2024, 2406.15927).

Knows the entropies of the reading's own samples; no label is learned from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from probegrid.errors import DataError
from probegrid.probes.base import Kind, Needs
from probegrid.probes.logistic import Logistic
from probegrid.probes.semantic_entropy import EXACT, check_entailment, classifier_of
from probegrid.schema.ranges import path_field

if TYPE_CHECKING:
    from probegrid.evaluation.checks import BoolArray, FloatArray
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe

_STEPS = 100


@dataclass
class SEP(Logistic):
    """Logistic regression of whether the discrete semantic entropy of the samples is low; its AUROC is of correctness.

    High and low are told apart where their sum of squares about their means is least, on the train split; the layer is
    the one that tells them apart best on validation.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.questions})
    fewest_samples: ClassVar[int] = 2
    entailment: str = path_field(EXACT)
    """What makes two samples mean the same, as of ``semantic_entropy``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_entailment(self.entailment)

    def needs(self, kind: Kind) -> Needs:
        """Hidden states of the answers, and samples."""
        return replace(
            super().needs(kind), samples=self.fewest_samples, classifier=classifier_of(self.entailment)
        )

    def fit(self, features: Features) -> FittedProbe:
        """Fit on whether the entropy is low.

        Raises:
            DataError: all entropies of a split are on one side.
        """
        from probegrid.evaluation.selection import best_column
        from probegrid.evaluation.splits import VALIDATION

        of_entropy = replace(features, labels=self.target(features))
        fitted = super().fit(of_entropy)
        validation = of_entropy.parts == VALIDATION
        log_odds = fitted.score(of_entropy)[validation] * fitted.scales.numpy()
        return replace(fitted, column=best_column(of_entropy.labels[validation], log_odds))

    def target(self, features: Features) -> BoolArray:
        """Whether each question's entropy is low, by the train split.

        Raises:
            DataError: it is the same of all questions of the train or of the validation split.
        """
        from probegrid.evaluation.splits import TRAIN, VALIDATION

        assert features.entropies is not None
        low: BoolArray = features.entropies < best_split(features.entropies[features.parts == TRAIN])
        for part in (TRAIN, VALIDATION):
            of_part = low[features.parts == part]
            if of_part.all() or not of_part.any():
                raise DataError(
                    f"the semantic entropy of the samples is {'low' if of_part.all() else 'high'} in all "
                    f"{len(of_part)} questions of the {part} split, so that nothing can be learned of it; raise "
                    "dataset.num_samples, decoding.num_generations or decoding.temperature."
                )
        return low


def best_split(entropies: FloatArray) -> float:
    """The threshold with the least sum of squares about the means of both sides, of 100 between 0 and the largest."""
    import numpy as np

    def squares(side: FloatArray) -> float:
        return float(((side - side.mean()) ** 2).sum()) if side.size else 0.0

    steps = np.linspace(1e-10, entropies.max(), _STEPS)
    losses = [squares(entropies[entropies < step]) + squares(entropies[entropies >= step]) for step in steps]
    return float(steps[int(np.argmin(losses))])
