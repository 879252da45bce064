"""What came of trying a way to read a model, and which way is taken.

Knows numbers and names alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """Which way a model is read, and what it was tried on."""

    used: str
    """Name of the way."""
    prompts: int = 0
    """Prompts that it was tried on; 0: it was not."""
    distance: float = 0.0
    """Of what it gives from the model's own forward pass of one row, the mean of the worst row."""
    allowed: float = 0.0
    """The largest distance that counts as rounding here."""
    unit: str = "nats"
    """Of the distances."""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """Faster ways, and why each was not taken."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "used": self.used,
            "prompts": self.prompts,
            "distance": self.distance,
            "allowed": self.allowed,
            "unit": self.unit,
            "passed_over": dict(self.passed_over),
        }

    def sentence(self) -> str:
        """What a person should know of it."""
        tried = (
            f"within {self.distance:.1g} {self.unit} of the model's own forward pass on {self.prompts} prompts"
            if self.prompts
            else "not tried"
        )
        others = "".join(f"; not {name}: {why}" for name, why in self.passed_over.items())
        return f"{self.used}: {tried}{others}"


@dataclass(frozen=True)
class Outcome:
    """How far a decoder was from the plain pass."""

    distance: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether it is rounding."""
        return self.distance <= self.allowed

    def why_not(self) -> str:
        """Why it is not taken."""
        return (
            f"{self.distance:.2g} nats from the model's own forward pass of one row, where rounding is "
            f"{self.allowed:.1g}"
        )
