"""Semantic entropy: how widely samples differ in meaning (Farquhar et al., Nature 2024).

Knows samples, their clusters and their entropies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from probegrid.errors import ConfigError
from probegrid.judges.clustering import clusters_of
from probegrid.judges.entropies import kuhn_semantic_entropy, polygraph_semantic_entropy, semantic_entropy
from probegrid.judges.likelihood import mean_logprob, sum_logprob
from probegrid.probes.base import AnswerProbe, Kind, Needs, Scores, Scoring
from probegrid.schema.ranges import path_field

EXACT = "exact"


class Estimator(Enum):
    """Which of the entropies of that name is taken."""

    nature = "nature"
    """Farquhar et al. 2024: of clusters whose probabilities sum to 1, by length-normalized likelihoods."""
    kuhn = "kuhn"
    """Kuhn et al. 2023: a mean over clusters of the logarithm of their length-normalized likelihoods; for parity."""
    polygraph = "polygraph"
    """LM-Polygraph: a mean over samples of the logarithm of their cluster's whole likelihoods; for parity."""


@dataclass
class SemanticEntropy(AnswerProbe):
    """Scores an answer by minus the entropy, in nats, of the clusters of meaning among the samples."""

    fewest_samples: ClassVar[int] = 2
    entailment: str = path_field(EXACT)
    """What makes two samples mean the same: ``exact`` (equal after the dataset's normalization; no second model), the
    hub id or folder of a sequence classifier for natural language inference (Farquhar et al. use
    ``microsoft/deberta-v2-xlarge-mnli``), by which each must entail the other, or ``model``: the model itself is
    asked."""
    estimator: Estimator = Estimator.nature
    """``nature``; ``kuhn`` and ``polygraph`` are other quantities of that name, for parity runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_entailment(self.entailment)

    def needs(self, kind: Kind) -> Needs:
        """Samples, and the entailment model if there is one."""
        return Needs(samples=self.fewest_samples, classifier=classifier_of(self.entailment))

    def score(self, scoring: Scoring) -> Scores:
        """Cluster the samples of each question, the greedy answer left out, and take the entropy."""
        samples = [found[1:] for found in scoring.reading.generations]
        clusters = clusters_of(
            scoring.data, [[one.text for one in found] for found in samples], scoring.entails
        )
        weigh = sum_logprob if self.estimator is Estimator.polygraph else mean_logprob
        entropy = _ENTROPIES[self.estimator]
        return Scores(
            [
                -entropy([weigh(sample) for sample in found], row)
                for found, row in zip(samples, clusters, strict=True)
            ],
            clusters=clusters,
        )


_ENTROPIES: dict[Estimator, Callable[[Sequence[float], Sequence[int]], float]] = {
    Estimator.nature: semantic_entropy,
    Estimator.kuhn: kuhn_semantic_entropy,
    Estimator.polygraph: polygraph_semantic_entropy,
}


def check_entailment(entailment: str) -> None:
    """Refuse an empty name.

    Raises:
        ConfigError: it is one.
    """
    if not entailment:
        raise ConfigError(
            "probe.entailment is empty; give exact, model, or an entailment model such as "
            "microsoft/deberta-v2-xlarge-mnli."
        )


def classifier_of(entailment: str) -> str | None:
    """What needs name for it: None where texts are compared."""
    return None if entailment == EXACT else entailment
