"""Judges of the samples as a graph whose edges say how alike two of them are.

Lin, Trivedi & Sun 2024 (arXiv 2305.19187): the degrees, the Laplacian's eigenvalues and its eigenvectors, of three
graphs: words that two samples share (``jaccard``), that they entail each other, that they do not contradict each other.
Nikitin et al. 2024 (arXiv 2405.20003): the entropy of the graph's heat kernel. Knows texts and relations.

Notation: m samples; W [m, m] symmetric weights with ones on the diagonal; D its row sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probegrid.judges.evidence import Evidence, Floats, Read
from probegrid.judges.registry import judge
from probegrid.judges.tokens import CONTRADICTS, ENTAILS, NEUTRAL

KEPT = 0.9
"""Eigenvectors of a smaller eigenvalue count in the eccentricity."""
HEAT = 0.3
"""Time of diffusion of the heat kernel."""


def jaccard(texts: Sequence[str]) -> Floats:
    """W by the words that two texts share among those of either; two without words share none."""
    words = [set(text.lower().split()) for text in texts]
    found = np.eye(len(texts))
    for row, first in enumerate(words):
        for column in range(row):
            either = len(first | words[column])
            found[row, column] = found[column, row] = len(first & words[column]) / either if either else 0.0
    return found


def entailing(relations: Floats) -> Floats:
    """W by the mean of both directions' probabilities of entailment, of relations [m, m, 3]."""
    found: Floats = (relations[..., ENTAILS] + relations[..., ENTAILS].T) / 2
    return found


def not_contradicting(relations: Floats) -> Floats:
    """W by 1 less the mean of both directions' probabilities of contradiction."""
    found: Floats = 1 - (relations[..., CONTRADICTS] + relations[..., CONTRADICTS].T) / 2
    return found


def lacking_degree(weights: Floats) -> float:
    """``1 - sum W / m^2``, in [0, 1): LM-Polygraph's ``DegMat``; UQ-NLG's is m times it."""
    return float(1 - weights.mean())


def _spectrum(weights: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues, rising, and unit eigenvectors of ``I - D^-1/2 W D^-1/2``."""
    scale = 1 / np.sqrt(weights.sum(1))
    values, vectors = np.linalg.eigh(np.eye(len(weights)) - scale[:, None] * weights * scale)
    return values, vectors


def eigenvalue_sum(weights: Floats) -> float:
    """``sum max(0, 1 - eigenvalue)`` of the normalized Laplacian, in [1, m]: a soft number of meanings."""
    return float(np.maximum(0, 1 - _spectrum(weights)[0]).sum())


def spread(weights: Floats, below: float = KEPT) -> float:
    """Distance of the samples from their middle in the eigenvectors of eigenvalues below a bound (eccentricity)."""
    values, vectors = _spectrum(weights)
    kept = vectors[:, values < below]
    return float(np.linalg.norm(kept - kept.mean(0)))


def heat_entropy(relations: Floats, time: float = HEAT, *, soft: bool = False) -> float:
    """Von Neumann entropy in nats of the heat kernel ``exp(-t (D - w))``, normalized to unit trace.

    Args:
        relations: [m, m, 3]; an edge has the sum of both directions, 1 for entailment and 1/2 for neutral.
        time: t.
        soft: weigh by the probabilities, as LM-Polygraph, and not by the likeliest of the three, as the official code.
    """
    chosen = relations if soft else np.eye(3)[relations.argmax(-1)]
    one_way = chosen[..., ENTAILS] + chosen[..., NEUTRAL] / 2
    weights = one_way + one_way.T
    values, vectors = np.linalg.eigh(np.diag(weights.sum(1)) - weights)
    kernel = vectors * np.exp(-time * values) @ vectors.T
    scale = 1 / np.sqrt(np.diag(kernel))
    masses = np.linalg.eigvalsh(scale[:, None] * kernel * scale / len(kernel))
    masses = masses[masses > 1e-8]
    return float(-(masses * np.log(masses)).sum())


def _texts(evidence: Evidence) -> Floats:
    return jaccard([sample.text for sample in evidence.samples])


@judge(Read.samples)
def deg_mat(evidence: Evidence) -> float:
    """How few words the samples share, by the degrees of their graph."""
    return lacking_degree(_texts(evidence))


@judge(Read.samples)
def eig_val_laplacian(evidence: Evidence) -> float:
    """A soft number of meanings by the words that samples share, from the graph's eigenvalues."""
    return eigenvalue_sum(_texts(evidence))


@judge(Read.samples)
def eccentricity(evidence: Evidence) -> float:
    """How far the samples lie apart by the words they share, in the graph's eigenvectors."""
    return spread(_texts(evidence))


@judge(Read.samples, Read.relations)
def deg_mat_entail(evidence: Evidence) -> float:
    """How little the samples entail each other, by the degrees of their graph."""
    return lacking_degree(entailing(evidence.between_samples))


@judge(Read.samples, Read.relations)
def eig_val_laplacian_entail(evidence: Evidence) -> float:
    """A soft number of meanings by how samples entail each other, from the graph's eigenvalues."""
    return eigenvalue_sum(entailing(evidence.between_samples))


@judge(Read.samples, Read.relations)
def eccentricity_entail(evidence: Evidence) -> float:
    """How far the samples lie apart by how they entail each other, in the graph's eigenvectors."""
    return spread(entailing(evidence.between_samples))


@judge(Read.samples, Read.relations)
def deg_mat_contra(evidence: Evidence) -> float:
    """How much the samples contradict each other, by the degrees of their graph."""
    return lacking_degree(not_contradicting(evidence.between_samples))


@judge(Read.samples, Read.relations)
def eig_val_laplacian_contra(evidence: Evidence) -> float:
    """A soft number of meanings by how samples contradict each other, from the graph's eigenvalues."""
    return eigenvalue_sum(not_contradicting(evidence.between_samples))


@judge(Read.samples, Read.relations)
def eccentricity_contra(evidence: Evidence) -> float:
    """How far the samples lie apart by how they contradict each other, in the graph's eigenvectors."""
    return spread(not_contradicting(evidence.between_samples))


@judge(Read.samples, Read.relations)
def kernel_language_entropy(evidence: Evidence) -> float:
    """The entropy of the heat kernel of the graph in which samples entail each other, nats.

    Hard weights, t = 0.3, not divided by log m.
    """
    return heat_entropy(evidence.between_samples)
