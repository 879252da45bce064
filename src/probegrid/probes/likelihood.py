"""The likelihood of one answer by the log-probabilities of its tokens.

Knows token log-probabilities (natural, at temperature 1). An answer without tokens has probability 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probegrid.inference.generation import Generation


def sum_logprob(answer: Generation) -> float:
    """Log-probability of the answer in nats, at most 0."""
    return sum(answer.token_logprobs)


def mean_logprob(answer: Generation) -> float:
    """Mean log-probability of the answer's tokens in nats, at most 0 (Malinin & Gales 2021, arXiv 2002.07650)."""
    return sum_logprob(answer) / max(1, len(answer.token_logprobs))


def perplexity(answer: Generation) -> float:
    """Inverse geometric mean of the tokens' probabilities, at least 1."""
    return math.exp(-mean_logprob(answer))
