"""Entropies of the answers to one question, estimated from samples at temperature 1, in nats.

Knows log-likelihoods and clusters.

Notation: m samples with log-likelihoods ``l_i`` (sums over tokens) and mean token log-probabilities ``a_i``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence


def semantic_entropy(mean_logprobs: Sequence[float], clusters: Sequence[int]) -> float:
    """``-sum_c p_c log p_c`` with ``p_c`` the sum of ``exp(a_i)`` over cluster c, normalized to 1 over the clusters.

    Farquhar et al. 2024 (doi 10.1038/s41586-024-07421-0), eq. 5 with the length-normalized likelihoods of their code.

    Args:
        mean_logprobs: ``a_i`` of the m samples.
        clusters: number of each sample's cluster.

    Returns:
        At least 0, at most the logarithm of the number of clusters.
    """
    highest = max(mean_logprobs)
    weights: defaultdict[int, float] = defaultdict(float)
    for cluster, mean in zip(clusters, mean_logprobs, strict=True):
        weights[cluster] += math.exp(mean - highest)
    return _entropy(weights.values())


def discrete_semantic_entropy(clusters: Sequence[int]) -> float:
    """As ``semantic_entropy``, with ``p_c`` the share of the samples in cluster c: needs no likelihoods (ibid.)."""
    return _entropy(Counter(clusters).values())


def monte_carlo_entropy(logprobs: Sequence[float]) -> float:
    """``-1/m sum_i l_i``: the predictive entropy of the whole answer; of ``a_i``, its length-normalized counterpart.

    Malinin & Gales 2021 (arXiv 2002.07650), eq. 5 and 9; Kuhn et al. 2023 (arXiv 2302.09664), section 2.
    """
    return -math.fsum(logprobs) / len(logprobs)


def _entropy(weights: Iterable[float]) -> float:
    """Shannon entropy of positive weights, normalized to 1."""
    positive = [weight for weight in weights if weight > 0]
    total = math.fsum(positive)
    return abs(math.fsum(weight / total * math.log(total / weight) for weight in positive))


def polygraph_semantic_entropy(logprobs: Sequence[float], clusters: Sequence[int]) -> float:
    """``-1/m sum_i L_c(i)`` with ``L_c`` the logarithm of the summed likelihoods of cluster c, not normalized.

    LM-Polygraph's ``SemanticEntropy``, for parity: repeats are added up, so that it can be negative.

    Args:
        logprobs: ``l_i`` of the m samples.
        clusters: number of each sample's cluster.
    """
    masses = _log_masses(logprobs, clusters)
    return -math.fsum(masses[cluster] for cluster in clusters) / len(clusters)


def kuhn_semantic_entropy(mean_logprobs: Sequence[float], clusters: Sequence[int]) -> float:
    """``-1/K sum_c L_c`` over the K clusters, of mean log-probabilities; Kuhn et al. 2023 without their shift of 5.

    Args:
        mean_logprobs: ``a_i`` of the m samples.
        clusters: number of each sample's cluster.
    """
    masses = _log_masses(mean_logprobs, clusters)
    return -math.fsum(masses.values()) / len(masses)


def semantic_negentropy(clusters: Sequence[int]) -> float:
    """``1 - H / log n`` of the shares of n answers in each cluster, in [0, 1]: uqlm's, the judged answer among them."""
    return 1 - discrete_semantic_entropy(clusters) / math.log(len(clusters))


def _log_masses(logprobs: Sequence[float], clusters: Sequence[int]) -> dict[int, float]:
    """Logarithm of the summed exponentials in each cluster."""
    members: defaultdict[int, list[float]] = defaultdict(list)
    for cluster, logprob in zip(clusters, logprobs, strict=True):
        members[cluster].append(logprob)
    highest = {cluster: max(found) for cluster, found in members.items()}
    return {
        cluster: highest[cluster] + math.log(math.fsum(math.exp(each - highest[cluster]) for each in found))
        for cluster, found in members.items()
    }
