"""One probe on several layers at once, the activations of one behind those of the other (Kossen et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from probegrid.evaluation.checks import FloatArray
from probegrid.probes.fitting.features import Features
from probegrid.probes.fitting.fitted import FittedByLayer


@dataclass(frozen=True)
class FittedJoined:
    """What was fitted on `Features.joined`, as a probe of the layers themselves; it scores in one way.

    Attributes:
        layers: the l layers, rising.
        inner: the probe, of one layer that is l times as wide.
    """

    column: ClassVar[int] = 0
    layers: tuple[int, ...]
    inner: FittedByLayer

    @property
    def threshold(self) -> float | None:
        """As of `inner`."""
        return self.inner.threshold

    @property
    def scales(self) -> Tensor:
        """float64[1]."""
        return self.inner.scales

    @property
    def notes(self) -> tuple[str, ...]:
        """As of `inner`."""
        return self.inner.notes

    def score(self, features: Features) -> FloatArray:
        """Score the n examples: float64[n, 1]."""
        return self.inner.score(features.joined())
