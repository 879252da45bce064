"""What judges have before them: all that the readings hold of one question.

Knows generations, matrices between texts, and what was kept of the distributions of a greedy answer's tokens.

Notation: m samples, T tokens of the greedy answer, k alternatives of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probegrid.judges.likelihood import mean_logprob, sum_logprob

if TYPE_CHECKING:
    from probegrid.inference.generation import Generation
    from probegrid.readings.token_steps import TokenSteps

Floats = NDArray[np.float64]


class Read(StrEnum):
    """What a judge may need of the readings."""

    greedy = "greedy"
    """The greedy answer and the log-probabilities of its tokens."""
    samples = "samples"
    """Two or more samples with the log-probabilities of their tokens."""
    clusters = "clusters"
    """Which samples mean the same."""
    relations = "relations"
    """How surely each of the greedy answer and the samples entails or contradicts each other one."""
    similarities = "similarities"
    """How alike the greedy answer and the samples are, two at a time."""
    greedy_relevance = "greedy_relevance"
    """What each token of the greedy answer adds to its meaning."""
    relevance = "relevance"
    """The same of the samples."""
    steps = "steps"
    """The distribution of each token of the greedy answer, reduced."""
    alternatives = "alternatives"
    """How the likeliest alternatives of each token relate to it."""
    attention = "attention"
    """The attention between the greedy answer's tokens."""
    states = "states"
    """A hidden state of each sample."""
    options = "options"
    """The log-probabilities of a question's options."""


@dataclass(frozen=True)
class Evidence:
    """All that the readings hold of one question; what was not read is None or empty."""

    question: str
    greedy: Generation
    samples: tuple[Generation, ...] = ()
    same_text: tuple[str, ...] = ()
    """The greedy answer's text and the samples', normalized by the dataset's rule: equal ones are the same answer."""
    clusters: tuple[int, ...] = ()
    """Number of each sample's cluster of meaning."""
    relations: Floats | None = None
    """float64[1 + m, 1 + m, 3], the greedy answer first: probabilities that the first contradicts the second, is
    neutral to it, entails it; of equal texts it is certain that they entail each other."""
    similarities: Floats | None = None
    """float64[1 + m, 1 + m], symmetric, 1 of a text with itself."""
    relevance: Sequence[Floats] = ()
    """float64[T] of the greedy answer, then of each sample read: 1 less the similarity of the whole answer to the
    answer without the token."""
    steps: TokenSteps | None = None
    alternatives: Floats | None = None
    """float64[T, k, 2, 3]: as ``relations``, of each likeliest token: of the written one to it, and back."""
    states: Floats | None = None
    """float64[m, d]."""
    options: Sequence[float] = ()
    """Log-probability of each option."""
    asked: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Log-probabilities of the choices of each prompt that was put to the model, by the prompt's name."""
    said: Mapping[str, str] = field(default_factory=dict)
    """The model's reply to each prompt that asked for words, by the prompt's name."""

    @cached_property
    def log_sums(self) -> Floats:
        """float64[m]: log-likelihood of each sample, ``l_i``."""
        return np.array([sum_logprob(sample) for sample in self.samples])

    @cached_property
    def log_means(self) -> Floats:
        """float64[m]: mean log-probability of each sample's tokens, ``a_i``."""
        return np.array([mean_logprob(sample) for sample in self.samples])

    @cached_property
    def between_samples(self) -> Floats:
        """float64[m, m, 3]: the relations of the samples alone."""
        assert self.relations is not None
        return self.relations[1:, 1:]

    @cached_property
    def firsts(self) -> list[int]:
        """The first sample of each text."""
        texts = [sample.text for sample in self.samples]
        return [row for row, text in enumerate(texts) if texts.index(text) == row]
