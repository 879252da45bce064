"""Slices of cards (MIG, NVIDIA's Multi-Instance GPU), as ``nvidia-smi -L`` lists them.

Knows their names: compute and memory, ``3g.40gb``; ``1c.3g.40gb`` where several share the memory of one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from probegrid.hardware.cards import Gpu

_CARD = re.compile(r"GPU \d+: .*\(UUID: (?P<uuid>GPU-[^)]+)\)")
_SLICE = re.compile(
    r"\s+MIG (?P<name>(?:(?P<part>\d+)c\.)?(?P<compute>\d+)g\.(?P<memory>\d+)gb\S*)\s+Device\s+\d+:\s+"
    r"\(UUID: (?P<uuid>MIG-[^)]+)\)"
)
_SLICES, _SLICES_OF_AN_A30 = 7, 4
"""Of a whole card (NVIDIA's MIG user guide, "Supported MIG profiles")."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a card that is a GPU of its own to CUDA."""

    uuid: str
    card: str
    """UUID of the card."""
    name: str
    compute: int
    """Slices of the card's processors."""
    memory_gb: int

    def of(self, card: Gpu) -> Gpu:
        """What is left of a card: its share of the processors, and of memory and its bandwidth."""
        slices = _SLICES_OF_AN_A30 if "A30" in card.name else _SLICES
        return replace(
            card,
            name=f"{card.name} MIG {self.name}",
            memory_gb=float(self.memory_gb),
            bandwidth_gb_per_s=card.bandwidth_gb_per_s * min(1.0, self.memory_gb / card.memory_gb),
            tflops=card.tflops * min(1.0, self.compute / slices),
        )


def slices_in(listing: str) -> list[Slice]:
    """The slices in what ``nvidia-smi -L`` prints: a line a card, then one for each of its slices."""
    found: list[Slice] = []
    card = ""
    for line in listing.splitlines():
        if match := _CARD.match(line):
            card = match["uuid"]
        elif match := _SLICE.match(line):
            compute = int(match["part"] or match["compute"])
            found.append(Slice(match["uuid"], card, match["name"], compute, int(match["memory"])))
    return found
