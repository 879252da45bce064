"""Probes: whatever reads a model on a dataset and gives every example a score.

A probe is its own configuration: a dataclass whose fields are the keys of its group. A new probe is one new module here
and one YAML in ``conf/probe``; the module's dataclass is found by itself (``composition.register``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probegrid.schema import ProbeConfig

if TYPE_CHECKING:
    from probegrid.readings.answers import AnswerReading

__all__ = ["AnswerProbe"]


@dataclass
class AnswerProbe(ProbeConfig, ABC):
    """Scores the model's own answers; an example's label is whether its answer was correct."""

    is_probability: ClassVar[bool] = False
    """Whether a score is a probability of being correct, so that its calibration can be measured."""

    @abstractmethod
    def score(self, reading: AnswerReading) -> list[float]:
        """Give each question of the reading a finite score, larger where a correct answer is more likely."""
