"""All judges of an answer at once, from readings that are each made once.

Knows which readings the judges take; what each makes of them is `probegrid.judges`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probegrid.errors import ConfigError
from probegrid.judges.asked import P_TRUE, P_TRUE_HINT, P_TRUE_ZERO, VERBALIZED, VERBALIZED_TOP_K
from probegrid.judges.likelihood import sum_logprob
from probegrid.probes.base import AnswerProbe, HiddenStates, Kind, Needs, Of, Scores, Scoring, Similarity
from probegrid.probes.p_true import Order, p_true_prompt, p_true_zero_prompt
from probegrid.probes.semantic_entropy import EXACT, check_entailment, classifier_of
from probegrid.probes.verbalized import verbalized_prompt
from probegrid.probes.verbalized_top_k import GUESSES, verbalized_top_k_prompt
from probegrid.schema.ranges import number_field, path_field, seed_field


@dataclass
class Judges(AnswerProbe):
    """Scores an answer by its log-likelihood (G-NLL), and beside it by every other judge there is."""

    fewest_samples: ClassVar[int] = 2
    entailment: str = path_field(EXACT)
    """What says whether one answer entails another: ``exact`` (equal after the dataset's normalization, else they
    contradict each other), the hub id or folder of a classifier for natural language inference, or ``model``: the model
    itself is asked. Every two answers to a question are held against each other."""
    similarity: str = path_field(Similarity.rouge_l.value)
    """What says how alike two answers are: ``rouge_l`` (their words), ``entailment`` (how surely each entails the
    other), or the hub id or folder of a cross-encoder (Duan et al. use ``cross-encoder/stsb-roberta-large``)."""
    order: Order = Order.nature
    """As of ``p_true``."""
    num_few_shot: int = number_field(20, least=0, most=100_000)
    """Worked examples of p(true); fewer where the pool or the context has no more."""
    seed: int = seed_field()
    """Seed of the draw of the worked examples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_entailment(self.entailment)
        if not self.similarity:
            raise ConfigError(
                "probe.similarity is empty; give rouge_l, entailment, or a cross-encoder such as "
                "cross-encoder/stsb-roberta-large."
            )

    def needs(self, kind: Kind) -> Needs:
        """All that a judge may take."""
        named = self.similarity in tuple(Similarity) and self.similarity != Similarity.cross_encoder
        return Needs(
            samples=self.fewest_samples,
            hidden=HiddenStates(Of.samples, "middle", "answer_last"),
            asks={
                P_TRUE: p_true_prompt(self.order, self.num_few_shot, self.seed),
                P_TRUE_HINT: p_true_prompt(self.order, self.num_few_shot, self.seed, hint=True),
                P_TRUE_ZERO: p_true_zero_prompt(),
                VERBALIZED: verbalized_prompt(),
                VERBALIZED_TOP_K: verbalized_top_k_prompt(GUESSES),
            },
            classifier=classifier_of(self.entailment),
            relations=True,
            distributions=True,
            similarity=Similarity(self.similarity) if named else Similarity.cross_encoder,
            cross_encoder=None if named else self.similarity,
        )

    def score(self, scoring: Scoring) -> Scores:
        """The log-likelihood of each greedy answer; one without tokens by its stop's own."""
        return Scores([sum_logprob(answer) for answer in scoring.reading.greedy])
