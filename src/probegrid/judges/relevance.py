"""Judges that weigh likelihoods by similarity: SAR (Duan et al. 2024, arXiv 2307.01379), CoCoA (arXiv 2502.04964).

Knows likelihoods and similarities, whatever gave them (ROUGE-L, an entailment model, a cross-encoder).
"""

from __future__ import annotations

import numpy as np

from probegrid.judges.evidence import Evidence, Floats, Read
from probegrid.judges.likelihood import logprobs, mean_logprob, sum_logprob
from probegrid.judges.registry import judge

TEMPERATURE = 0.001


def token_relevance(logprobs_of: Floats, relevance: Floats) -> float:
    """``sum_t -log p_t r_t``, relevance normalized to 1; all alike where none adds anything.

    Args:
        logprobs_of: [T].
        relevance: [T], 1 less the similarity without the token.
    """
    total = relevance.sum()
    shares = relevance / total if total > 0 else np.full(len(relevance), 1 / len(relevance))
    return float(-(logprobs_of * shares).sum())


def sentence_relevance(
    log_likelihoods: Floats, similarities: Floats, temperature: float = TEMPERATURE
) -> float:
    """``-1/m sum_j log(p_j + sum_{k != j} g(j, k) p_k / temperature)``.

    Args:
        log_likelihoods: [m], log p.
        similarities: [m, m].
        temperature: of the paper, 0.001.
    """
    most = log_likelihoods.max()
    masses = np.exp(log_likelihoods - most)
    others = (similarities * (1 - np.eye(len(masses)))) @ masses / temperature
    return float(-(np.log(masses + others) + most).mean())


@judge(Read.greedy, Read.greedy_relevance)
def token_sar(evidence: Evidence) -> float:
    """The greedy answer's negative log-likelihoods weighted by what each token adds to its meaning, nats (TokenSAR)."""
    return token_relevance(np.array(logprobs(evidence.greedy)), evidence.relevance[0])


@judge(Read.samples, Read.similarities)
def sentence_sar(evidence: Evidence) -> float:
    """The mean negative log-likelihood of the samples, each helped by those that are like it, nats (SentenceSAR)."""
    assert evidence.similarities is not None
    return sentence_relevance(evidence.log_sums, evidence.similarities[1:, 1:])


@judge(Read.samples, Read.similarities, Read.relevance)
def sar(evidence: Evidence) -> float:
    """SentenceSAR with each sample's TokenSAR for its likelihood, nats."""
    assert evidence.similarities is not None
    of_tokens = [
        token_relevance(np.array(logprobs(sample)), relevance)
        for sample, relevance in zip(evidence.samples, evidence.relevance[1:], strict=True)
    ]
    return sentence_relevance(-np.array(of_tokens), evidence.similarities[1:, 1:])


def dissimilarity(evidence: Evidence) -> float:
    """Mean of 1 less the similarity of the greedy answer to each sample."""
    assert evidence.similarities is not None
    return float(1 - evidence.similarities[0, 1:].mean())


@judge(Read.greedy, Read.samples, Read.similarities)
def cocoa_msp(evidence: Evidence) -> float:
    """G-NLL times how unlike the greedy answer the samples are (CoCoA, MSP)."""
    return -sum_logprob(evidence.greedy) * dissimilarity(evidence)


@judge(Read.greedy, Read.samples, Read.similarities)
def cocoa_ppl(evidence: Evidence) -> float:
    """The greedy answer's mean negative log-likelihood times how unlike it the samples are (CoCoA, PPL)."""
    return -mean_logprob(evidence.greedy) * dissimilarity(evidence)


@judge(Read.samples, Read.similarities, Read.steps)
def cocoa_mte(evidence: Evidence) -> float:
    """The mean token entropy of the greedy answer times how unlike it the samples are (CoCoA, MTE)."""
    assert evidence.steps is not None
    return float(evidence.steps.entropies.mean()) * dissimilarity(evidence)
