"""Judges of what the samples mean: by their clusters, and by how surely they entail or contradict each other.

Knows clusters and relations.
"""

from __future__ import annotations

import numpy as np

from probegrid.judges import entropies
from probegrid.judges.evidence import Evidence, Floats, Read
from probegrid.judges.likelihood import mean_logprob
from probegrid.judges.registry import Rises, judge
from probegrid.judges.tokens import CONTRADICTS, ENTAILS, NEUTRAL


@judge(Read.samples, Read.clusters)
def semantic_entropy(evidence: Evidence) -> float:
    """The entropy of the clusters of meaning among the samples, by their likelihoods, nats.

    Farquhar et al. 2024 (doi 10.1038/s41586-024-07421-0), whose code calls it Rao's.
    """
    return entropies.semantic_entropy(evidence.log_means.tolist(), evidence.clusters)


@judge(Read.samples, Read.clusters)
def discrete_semantic_entropy(evidence: Evidence) -> float:
    """The entropy of the shares of the samples in each cluster of meaning, nats."""
    return entropies.discrete_semantic_entropy(evidence.clusters)


@judge(Read.samples, Read.clusters)
def num_semantic_sets(evidence: Evidence) -> float:
    """The number of clusters of meaning among the samples.

    Kuhn et al. 2023 (arXiv 2302.09664), with the clusters of the semantic entropy.
    """
    return float(len(set(evidence.clusters)))


@judge(Read.samples, Read.relations)
def num_linked_sets(evidence: Evidence) -> float:
    """The number of sets of samples that are linked by entailing each other more surely than they contradict.

    LM-Polygraph's ``NumSemSets``: connected components.
    """
    return float(linked_sets(evidence.between_samples))


def linked_sets(relations: Floats) -> int:
    """Connected components of ``E > C`` both ways, of relations [m, m, 3]."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    links = relations[..., ENTAILS] > relations[..., CONTRADICTS]
    return int(connected_components(csr_array(links & links.T), directed=False)[0])


@judge(Read.samples, Read.relations, rises=Rises.confidence)
def meaning_agreement(evidence: Evidence) -> float:
    """The share of the samples that entail the greedy answer and are entailed by it."""
    assert evidence.relations is not None
    likeliest = evidence.relations.argmax(-1) == ENTAILS
    return float((likeliest[0, 1:] & likeliest[1:, 0]).mean())


@judge(Read.samples, Read.relations, rises=Rises.confidence)
def semantic_density(evidence: Evidence) -> float:
    """How near the samples lie to the greedy answer in meaning, weighted by their likelihoods.

    Qiu & Miikkulainen 2024 (arXiv 2405.13845) over samples of different texts and the greedy answer itself.
    """
    assert evidence.relations is not None
    rows, texts = [], {evidence.greedy.text}
    for row, sample in enumerate(evidence.samples):
        if sample.text not in texts:
            rows.append(row)
            texts.add(sample.text)
    means = [mean_logprob(evidence.greedy), *evidence.log_means[rows]]
    places = [0, *(row + 1 for row in rows)]
    to, back = evidence.relations[0, places], evidence.relations[places, 0]
    return density(np.array(means), to, back)


def density(means: Floats, forward: Floats, backward: Floats) -> float:
    """``sum p_i k_i / sum p_i`` with ``p_i = exp(a_i)``, ``k_i = max(0, 1 - d_i)`` and ``d_i`` the mean of C + N/2.

    Args:
        means: [n], ``a_i``.
        forward, backward: [n, 3], relations between each and the judged answer, either way.
    """
    distances = [way[:, CONTRADICTS] + way[:, NEUTRAL] / 2 for way in (forward, backward)]
    kernels = np.maximum(0, 1 - np.mean(distances, axis=0))
    weights = np.exp(means)
    return float((weights * kernels).sum() / weights.sum())


@judge(Read.samples, Read.relations)
def self_check_nli(evidence: Evidence) -> float:
    """The mean probability that the greedy answer contradicts a sample, neutral left out.

    SelfCheckGPT (Manakul et al. 2023, arXiv 2303.08896), premise the answer, the question before both; a short answer
    is one sentence, and a longer one is taken whole.
    """
    assert evidence.relations is not None
    return contradicted(evidence.relations[0, 1:])


def contradicted(relations: Floats) -> float:
    """Mean of ``C / (E + C)`` of relations [n, 3]; 1/2 where both are 0."""
    against, both = relations[:, CONTRADICTS], relations[:, CONTRADICTS] + relations[:, ENTAILS]
    return float(np.where(both > 0, against / np.where(both > 0, both, 1), 0.5).mean())
