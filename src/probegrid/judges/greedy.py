"""Judges of the greedy answer by the log-probabilities of its own tokens.

Knows token log-probabilities; an answer without tokens is judged by its stop's.
"""

from __future__ import annotations

import math

from probegrid.judges import likelihood
from probegrid.judges.evidence import Evidence, Read
from probegrid.judges.likelihood import logprobs, mean_logprob, sum_logprob
from probegrid.judges.registry import Rises, judge


@judge(Read.greedy)
def gnll(evidence: Evidence) -> float:
    """The negative log-likelihood of the greedy answer, nats.

    Aichberger et al. 2024 (arXiv 2412.15176, eq. 11); LM-Polygraph's ``MaximumSequenceProbability``.
    """
    return -sum_logprob(evidence.greedy)


@judge(Read.greedy, rises=Rises.confidence)
def sequence_probability(evidence: Evidence) -> float:
    """The probability of the greedy answer, in the order of G-NLL."""
    return math.exp(sum_logprob(evidence.greedy))


@judge(Read.greedy)
def mean_nll(evidence: Evidence) -> float:
    """The mean negative log-likelihood of the greedy answer's tokens, nats.

    LM-Polygraph's ``Perplexity``, which takes no exponential.
    """
    return -mean_logprob(evidence.greedy)


@judge(Read.greedy)
def perplexity(evidence: Evidence) -> float:
    """The perplexity of the greedy answer, in the order of its mean negative log-likelihood."""
    return likelihood.perplexity(evidence.greedy)


@judge(Read.greedy)
def max_token_nll(evidence: Evidence) -> float:
    """The negative log-likelihood of the greedy answer's least likely token, nats."""
    return -min(logprobs(evidence.greedy))


@judge(Read.greedy)
def n_tokens(evidence: Evidence) -> float:
    """The number of tokens of the greedy answer: what every other judge has to beat."""
    return float(len(evidence.greedy.token_ids))


@judge(Read.greedy)
def first_token_entropy(evidence: Evidence) -> float:
    """The entropy of the distribution of the greedy answer's first token, nats."""
    return evidence.greedy.first_entropy


@judge(Read.options, rises=Rises.confidence)
def option_confidence(evidence: Evidence) -> float:
    """The share of the likeliest option in the probability of all options of the question.

    Softmax over the options' log-probabilities (Kadavath et al. 2022, arXiv 2207.05221, section 2).
    """
    most = max(evidence.options)
    return 1 / math.fsum(math.exp(each - most) for each in evidence.options)
