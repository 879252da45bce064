"""Semantic entropy: how widely samples differ in meaning (Farquhar et al., Nature 2024).

Knows samples, their clusters and their entropies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from probegrid.errors import ConfigError
from probegrid.probes.base import AnswerProbe, Scores, Scoring
from probegrid.probes.clustering import equal, mutual_entailment
from probegrid.probes.entropies import discrete_semantic_entropy, monte_carlo_entropy, semantic_entropy
from probegrid.probes.likelihood import mean_logprob, sum_logprob

EXACT = "exact"


@dataclass
class SemanticEntropy(AnswerProbe):
    """Scores an answer by minus the entropy, in nats, of the clusters of meaning among the samples."""

    fewest_samples: ClassVar[int] = 2
    entailment: str = EXACT
    """What makes two samples mean the same: ``exact`` (equal after the dataset's normalization; no second model), or
    the hub id or folder of a sequence classifier for natural language inference (Farquhar et al. use
    ``microsoft/deberta-v2-xlarge-mnli``), by which each must entail the other."""

    def __post_init__(self) -> None:
        if not self.entailment:
            raise ConfigError(
                "probe.entailment is empty; give exact, or an entailment model such as "
                "microsoft/deberta-v2-xlarge-mnli."
            )

    @property
    def classifier(self) -> str | None:
        """The entailment model, if there is one."""
        return None if self.entailment == EXACT else self.entailment

    def score(self, scoring: Scoring) -> Scores:
        """Cluster the samples of each question, the greedy answer left out, and take the entropy.

        Beside it, negated too: the discrete semantic entropy, the predictive entropy and its length-normalized
        counterpart, all of the same samples; and the log-likelihood of the greedy answer, minus its G-NLL. A sample
        without tokens has log-likelihood 0.
        """
        samples = [found[1:] for found in scoring.reading.generations]
        texts = [[sample.text for sample in found] for found in samples]
        clusters, read_s, notes = self._clusters(scoring, texts)
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
            read_s=read_s,
            notes=notes,
        )

    def _clusters(
        self, scoring: Scoring, texts: Sequence[Sequence[str]]
    ) -> tuple[list[list[int]], float, Sequence[str]]:
        """Cluster of each sample, seconds that entailment took, and what to know of it."""
        if self.classifier is None:
            from probegrid.evaluation.correctness import Rule, normalize

            rule = Rule(scoring.data.rule)
            return [equal([normalize(text, rule) for text in found]) for found in texts], 0.0, ()
        stated = [
            [f"{question.text} {text}" for text in found]
            for question, found in zip(scoring.data.questions, texts, strict=True)
        ]
        with scoring.respondent.entailments(self.classifier, scoring.reading.key) as entailments:
            clusters = mutual_entailment(stated, entailments)
        return clusters, entailments.read_s, entailments.notes
