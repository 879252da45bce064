"""Semantic entropy: how widely samples differ in meaning (Farquhar et al., Nature 2024).

Knows samples, their clusters and their entropies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from probegrid.errors import ConfigError
from probegrid.probes.base import AnswerProbe, Kind, Needs, Scores, Scoring
from probegrid.judges.clustering import equal, mutual_entailment
from probegrid.judges.entropies import discrete_semantic_entropy, monte_carlo_entropy, semantic_entropy
from probegrid.judges.likelihood import mean_logprob, sum_logprob
from probegrid.schema.ranges import path_field

EXACT = "exact"


@dataclass
class SemanticEntropy(AnswerProbe):
    """Scores an answer by minus the entropy, in nats, of the clusters of meaning among the samples."""

    fewest_samples: ClassVar[int] = 2
    entailment: str = path_field(EXACT)
    """What makes two samples mean the same: ``exact`` (equal after the dataset's normalization; no second model), or
    the hub id or folder of a sequence classifier for natural language inference (Farquhar et al. use
    ``microsoft/deberta-v2-xlarge-mnli``), by which each must entail the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.entailment:
            raise ConfigError(
                "probe.entailment is empty; give exact, or an entailment model such as "
                "microsoft/deberta-v2-xlarge-mnli."
            )

    def needs(self, kind: Kind) -> Needs:
        """Samples, and the entailment model if there is one."""
        classifier = None if self.entailment == EXACT else self.entailment
        return Needs(samples=self.fewest_samples, classifier=classifier)

    def score(self, scoring: Scoring) -> Scores:
        """Cluster the samples of each question, the greedy answer left out, and take the entropy.

        Beside it, negated too: the discrete semantic entropy, the predictive entropy and its length-normalized
        counterpart, all of the same samples; and the log-likelihood of the greedy answer, minus its G-NLL.
        """
        samples = [found[1:] for found in scoring.reading.generations]
        clusters = self._clusters(scoring, [[sample.text for sample in found] for found in samples])
        sums = [[sum_logprob(sample) for sample in found] for found in samples]
        means = [[mean_logprob(sample) for sample in found] for found in samples]
        return Scores(
            [-semantic_entropy(*row) for row in zip(means, clusters, strict=True)],
            {
                "discrete_semantic_entropy": [-discrete_semantic_entropy(row) for row in clusters],
                "predictive_entropy": [-monte_carlo_entropy(row) for row in sums],
                "length_normalized_entropy": [-monte_carlo_entropy(row) for row in means],
                "gnll": [sum_logprob(answer) for answer in scoring.reading.greedy],
            },
        )

    def _clusters(self, scoring: Scoring, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """Cluster of each sample."""
        if scoring.entails is None:
            from probegrid.evaluation.rules import find_rule

            rule = find_rule(scoring.data.rule, **scoring.data.rule_settings)
            return [equal([rule.normalize(text) for text in found]) for found in texts]
        stated = [
            [f"{question.text} {text}" for text in found]
            for question, found in zip(scoring.data.questions, texts, strict=True)
        ]
        return mutual_entailment(stated, scoring.entails)
