"""Judges of the samples as texts, and by their likelihoods; no meaning is asked for.

Knows samples and the words of texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from probegrid.evaluation.rules import rouge_l
from probegrid.judges.entropies import monte_carlo_entropy
from probegrid.judges.evidence import Evidence, Read
from probegrid.judges.registry import Rises, judge


@judge(Read.samples)
def predictive_entropy(evidence: Evidence) -> float:
    """The mean negative log-likelihood of the samples, nats.

    Malinin & Gales 2021 (arXiv 2002.07650); LM-Polygraph's ``MonteCarloSequenceEntropy``.
    """
    return monte_carlo_entropy(evidence.log_sums.tolist())


@judge(Read.samples)
def length_normalized_entropy(evidence: Evidence) -> float:
    """The mean over samples of their mean negative log-likelihood a token, nats."""
    return monte_carlo_entropy(evidence.log_means.tolist())


@judge(Read.samples, rises=Rises.confidence)
def lexical_similarity(evidence: Evidence) -> float:
    """The mean ROUGE-L of every two samples.

    Fomicheva et al. 2020 (TACL 8:539). Words as they are: rouge_score's stemmer would also join "car" and "cars".
    """
    return mean_rouge_l([sample.text for sample in evidence.samples])


def mean_rouge_l(texts: Sequence[str]) -> float:
    """Mean ROUGE-L of the pairs of texts, each two once; of equal texts 1, though they be empty."""
    counts = Counter(texts)
    total = sum(count * (count - 1) / 2 for count in counts.values())
    for (first, n_first), (second, n_second) in combinations(counts.items(), 2):
        total += n_first * n_second * rouge_l(first, second)
    return total / (len(texts) * (len(texts) - 1) / 2)


@judge(Read.samples, rises=Rises.confidence)
def agreement(evidence: Evidence) -> float:
    """The share of the samples that say what the greedy answer says (self-consistency).

    Texts as the dataset's rule normalizes them, numbers by their value (Wang et al. 2022, arXiv 2203.11171).
    """
    own, *others = evidence.same_text
    return sum(other == own for other in others) / len(others)


@judge(Read.samples, rises=Rises.confidence)
def pairwise_agreement(evidence: Evidence) -> float:
    """The share of the pairs of samples that say the same."""
    counts, m = Counter(evidence.same_text[1:]), len(evidence.samples)
    return sum(count * (count - 1) for count in counts.values()) / (m * (m - 1))
