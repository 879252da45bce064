"""Judges of what the model says when it is asked about its own answer.

Knows log-probabilities of the choices it was given, and how a stated probability is read.
"""

from __future__ import annotations

import math
import re

from probegrid.judges.evidence import Evidence
from probegrid.judges.registry import Rises, judge

P_TRUE, P_TRUE_HINT, P_TRUE_ZERO = "p_true", "p_true_hint", "p_true_zero"
"""Prompts that offer choices, by name: with worked examples and samples, the same asking whether these match, bare."""
VERBALIZED, VERBALIZED_TOP_K = "verbalized", "verbalized_top_k"
"""Prompts that want a number: of the greedy answer alone, and of it among the samples."""
_LABEL = re.compile(r"\b(?:Probability|P1)\W{0,3}:", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<number>\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?|\.\d+)\s*"
    r"(?P<unit>[%\uff05]|per\s?cent\b|(?:/|out\s+of\b)\s*(?P<of>\d+(?:\.\d+)?))?",
    re.IGNORECASE,
)
_LARGEST = 700  # of which exp is still a number


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


@judge(rises=Rises.confidence, asks=P_TRUE_HINT)
def p_true_hint(evidence: Evidence) -> float:
    """The probability the model gives to its answer being what its samples say, among yes and no.

    The hint of semantic_uncertainty (Farquhar et al. 2024): do the brainstormed answers match the possible answer?
    """
    return share_of_first(*evidence.asked[P_TRUE_HINT])


@judge(rises=Rises.confidence, asks=P_TRUE_ZERO)
def p_true_zero(evidence: Evidence) -> float:
    """The same probability without samples and without worked examples."""
    return share_of_first(*evidence.asked[P_TRUE_ZERO])


def share_of_first(true: float, false: float) -> float:
    """``p(A) / (p(A) + p(B))`` from their log-probabilities."""
    odds_against = false - true
    return 1 / (1 + math.exp(odds_against)) if odds_against < _LARGEST else math.exp(-odds_against)


@judge(rises=Rises.confidence, asks=VERBALIZED)
def verbalized(evidence: Evidence) -> float:
    """The probability that the model states in words for its own answer.

    Tian et al. 2023 (arXiv 2305.14975), in a second turn; not a number where it states none.
    """
    return stated_probability(evidence.said[VERBALIZED])


@judge(rises=Rises.confidence, asks=VERBALIZED_TOP_K)
def verbalized_top_k(evidence: Evidence) -> float:
    """The probability that the model states in words for its own answer when it is shown beside its other guesses.

    Tian et al. 2023 (arXiv 2305.14975), in a second turn; not a number where it states none.
    """
    return stated_probability(evidence.said[VERBALIZED_TOP_K])


def probability_beside_guess(answer: str) -> float:
    """The probability behind the last ``Probability:`` or ``P1:`` of an answer that states both at once.

    Returns:
        As `stated_probability`; not a number where there is no such line, whatever numbers the guess holds.
    """
    labels = list(_LABEL.finditer(answer))
    if not labels:
        return math.nan
    line, _, below = answer[labels[-1].end() :].partition("\n")
    if not line.strip("* \t"):  # a number of its own below the label
        line = below.strip().partition("\n")[0]
        line = line if _NUMBER.match(line) else ""
    return stated_probability(line)


def stated_probability(reply: str) -> float:
    """Read a probability: ``0.9``, ``0,9``, ``90%``, ``9 out of 10``, ``1``; the last one where there are several.

    Returns:
        In [0, 1]; not a number where none is stated. A number above 1 without a unit is a percentage, clipped to 1.
    """
    found = list(_NUMBER.finditer(reply))
    if not found:
        return math.nan
    value = float(found[-1]["number"].replace(",", "."))
    if (of := found[-1]["of"]) is not None:
        value = value / float(of) if float(of) else math.nan
    elif found[-1]["unit"] or value > 1:
        value /= 100
    return min(value, 1.0) if not math.isnan(value) else value
