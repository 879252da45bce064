"""Judges of the greedy answer by the whole distributions of its tokens and the attention between them.

Knows what was kept of the distributions (`TokenSteps`), and how alternatives relate to the token that was written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from probegrid.judges.evidence import Evidence, Floats, Read
from probegrid.judges.likelihood import logprobs
from probegrid.judges.registry import Rises, judge

if TYPE_CHECKING:
    from probegrid.readings.token_steps import TokenSteps

CONTRADICTS, NEUTRAL, ENTAILS = range(3)
"""Columns of relations."""
OF_PROBABILITIES, OF_ENTROPIES = 0.2, 0.8
"""Weights of a token's own confidence in RAUQ, those of base models in LM-Polygraph."""


@judge(Read.steps)
def mean_token_entropy(evidence: Evidence) -> float:
    """The mean entropy of the distributions of the greedy answer's tokens, nats.

    Fomicheva et al. 2020 (TACL 8:539), over the whole vocabulary.
    """
    return float(_steps(evidence).entropies.mean())


@judge(Read.steps)
def max_token_entropy(evidence: Evidence) -> float:
    """The largest entropy of the distributions of the greedy answer's tokens, nats."""
    return float(_steps(evidence).entropies.max())


@judge(Read.steps, rises=Rises.confidence)
def self_certainty(evidence: Evidence) -> float:
    """The mean divergence of the uniform distribution from those of the greedy answer's tokens, nats.

    ``mean_t KL(uniform || p_t)``, Kang et al. 2025 (arXiv 2502.18581). The tail of the vocabulary dominates it.
    """
    return float(_steps(evidence).divergences.mean())


@judge(Read.steps, rises=Rises.confidence)
def probability_margin(evidence: Evidence) -> float:
    """The mean lead of the likeliest token over the next among the greedy answer's tokens."""
    probabilities = np.exp(_steps(evidence).top_logprobs)
    return float((probabilities[:, 0] - probabilities[:, 1]).mean())


@judge(Read.steps, Read.alternatives)
def ccp(evidence: Evidence) -> float:
    """Minus the probability of the greedy answer given what its alternatives mean (claim-conditioned probability).

    Of each token the probability of itself and of alternatives that entail it, among these and those that contradict
    it; multiplied. Fadeeva et al. 2024 (arXiv 2403.04696), by single tokens as in LM-Polygraph.
    """
    assert evidence.alternatives is not None
    return -claim_conditioned(_steps(evidence).top_logprobs, evidence.alternatives)


def claim_conditioned(top_logprobs: Floats, relations: Floats) -> float:
    """``prod_t sum p(written + entailing) / sum p(written + entailing + contradicting)``.

    Args:
        top_logprobs: [T, k], the written token's first.
        relations: [T, k, 2, 3], of the written token to each, and back.

    Returns:
        In (0, 1].
    """
    forward, backward = (relations[:, :, way].argmax(-1) for way in (0, 1))
    both = np.where(forward == NEUTRAL, backward, forward)
    both = np.where((backward != NEUTRAL) & (both != backward), NEUTRAL, both)
    both[:, 0] = ENTAILS
    weights = np.exp(top_logprobs)
    kept = (weights * (both == ENTAILS)).sum(1)
    return float(np.prod(kept / (weights * (both != NEUTRAL)).sum(1)))


@judge(Read.greedy, Read.steps, Read.attention)
def rauq(evidence: Evidence) -> float:
    """The largest mean surprise over layers of tokens weighted by attention to the token before, nats (RAUQ).

    Vazhentsev et al. 2025 (arXiv 2505.20045); LM-Polygraph's less the 1 that it adds.
    """
    return recurrent(np.exp(logprobs(evidence.greedy)), _steps(evidence).attention, OF_PROBABILITIES)


@judge(Read.steps, Read.attention)
def rauq_entropy(evidence: Evidence) -> float:
    """RAUQ with the distance of each token's entropy from the largest there is in place of its probability."""
    steps = _steps(evidence)
    room = math.log(steps.vocabulary) - steps.entropies + 1e-10
    return recurrent(room, steps.attention, OF_ENTROPIES)


def recurrent(confidences: Floats, attention: Floats, own: float) -> float:
    """``max_l -mean_i log c_i`` with ``c_1 = p_1`` and ``c_i = own p_i + (1 - own) a_l,i c_i-1``.

    Args:
        confidences: [T], positive.
        attention: [layers, T - 1].
        own: weight of a token's own confidence.
    """
    column = np.full(len(attention), confidences[0])
    total = np.log(column)
    for confidence, weights in zip(confidences[1:], attention.T, strict=True):
        column = own * confidence + (1 - own) * weights * column
        total = total + np.log(column)
    return float((-total / len(confidences)).max())


@judge(Read.steps, Read.attention)
def attention_score(evidence: Evidence) -> float:
    """Minus the mean over heads of the middle layer's summed log-attention of the answer's tokens to themselves.

    LLM-Check (Sriramanan et al., NeurIPS 2024), of the generated tokens alone, the last left out, as in LM-Polygraph.
    """
    return -float(_steps(evidence).middle_attention.sum())


def _steps(evidence: Evidence) -> TokenSteps:
    assert evidence.steps is not None
    return evidence.steps
