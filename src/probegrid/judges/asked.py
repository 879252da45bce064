"""Judges of what the model says when it is asked about its own answer.

Knows log-probabilities of the choices it was given.
"""

from __future__ import annotations

import math

from probegrid.judges.evidence import Evidence
from probegrid.judges.registry import Rises, judge

P_TRUE, P_TRUE_ZERO = "p_true", "p_true_zero"
"""The prompts, by name: with worked examples and samples, and the bare one."""


@judge(rises=Rises.confidence, asks=P_TRUE)
def p_true(evidence: Evidence) -> float:
    """The probability the model gives to its answer being true, among true and false.

    Kadavath et al. 2022 (arXiv 2207.05221): ``p(A) / (p(A) + p(B))``.
    """
    return share_of_first(*evidence.asked[P_TRUE])


@judge(rises=Rises.confidence, asks=P_TRUE)
def log_p_true(evidence: Evidence) -> float:
    """The log-probability of ' A' (True) after the question whether the answer is true, as in the original."""
    return evidence.asked[P_TRUE][0]


@judge(rises=Rises.confidence, asks=P_TRUE_ZERO)
def p_true_zero(evidence: Evidence) -> float:
    """The same probability without samples and without worked examples."""
    return share_of_first(*evidence.asked[P_TRUE_ZERO])


def share_of_first(true: float, false: float) -> float:
    """``p(A) / (p(A) + p(B))`` from their log-probabilities."""
    return 1 / (1 + math.exp(false - true))
