"""The reading *similarities*: how alike two texts are by a cross-encoder, each pair asked once.

Knows pairs of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from probegrid.models.classifier import Classifier, Pair
from probegrid.readings.pairs import PairReading


class Similarities(PairReading):
    """What a cross-encoder says."""

    kind: ClassVar[str] = "similarities"

    def __call__(self, pairs: Sequence[Pair]) -> list[float]:
        """Similarity of each pair, in [0, 1]; the order of its texts may matter.

        Raises:
            StoreError: a full disk.
            RunError: one pair alone does not fit in memory.
        """
        return [said[0] for said in self.said(pairs)]

    def say(self, classifier: Classifier, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """As `PairReading`."""
        return [(value,) for value in classifier.similarities(pairs)]
