"""How alike two answers are by the words they share in order; no model is asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from probegrid.evaluation.rules import rouge_l


class SharedWords:
    """Says how alike texts are by ROUGE-L."""

    kind: ClassVar[str] = "rouge_l"

    def __init__(self) -> None:
        self.read_s = 0.0
        self.notes: tuple[str, ...] = ()

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """ROUGE-L of the two texts of each pair."""
        started = time.perf_counter()
        found = [rouge_l(first, second) for first, second in pairs]
        self.read_s += time.perf_counter() - started
        return found
