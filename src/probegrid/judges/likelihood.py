"""The likelihood of one answer by the log-probabilities of its tokens.

Knows token log-probabilities (natural, at temperature 1). An answer without tokens before its stop has the probability
of the stop's own token, as in semantic_uncertainty: were it 1, the answer that says nothing would be the surest of all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probegrid.inference.generation import Generation


def logprobs(answer: Generation) -> tuple[float, ...]:
    """Log-probabilities of the answer's tokens in nats; of one without tokens, that of its stop alone: never empty."""
    return answer.token_logprobs or (answer.first_logprob,)


def sum_logprob(answer: Generation) -> float:
    """Log-probability of the answer in nats, at most 0."""
    return sum(logprobs(answer))


def mean_logprob(answer: Generation) -> float:
    """Mean log-probability of the answer's tokens in nats, at most 0 (Malinin & Gales 2021, arXiv 2002.07650)."""
    return sum_logprob(answer) / len(logprobs(answer))


def perplexity(answer: Generation) -> float:
    """Inverse geometric mean of the tokens' probabilities, at least 1."""
    return math.exp(-mean_logprob(answer))
