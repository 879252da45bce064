"""P(IK): whether the model knows, read before it answers (Kadavath et al. 2022, arXiv 2207.05221).

Their value head predicts the share of right samples; this is the logistic probe on the correctness of the greedy
answer, as in semantic_uncertainty, at the last token of the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probegrid.probes.base import Kind
from probegrid.probes.logistic import Logistic


@dataclass
class PIK(Logistic):
    """The logistic probe at the prompt's last token."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.questions})
    positions: str = "prompt_last"
    """Where an activation is read, as of ``logistic``."""
