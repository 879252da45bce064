"""Verbalized confidence among several guesses (top-k, two stages, of Tian et al. 2023, arXiv 2305.14975).

The guesses of the first stage are the model's own answers: the greedy one, then samples that say something else. Knows
the prompt of the second, which asks for the probability of each; the greedy answer's is the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from probegrid.judges.asked import VERBALIZED_TOP_K, stated_probability
from probegrid.probes.base import AnswerProbe, Ask, Kind, Needs, Scores, Scoring
from probegrid.probes.verbalized import REPLY_TOKENS, scores_of
from probegrid.schema.ranges import number_field

if TYPE_CHECKING:
    from probegrid.data.example import Question
    from probegrid.inference.generation import Generation

GUESSES = 4


@dataclass
class VerbalizedTopK(AnswerProbe):
    """Scores an answer by the probability that the model states for it when it sees its other guesses too."""

    is_probability: ClassVar[bool] = True
    fewest_samples: ClassVar[int] = 2
    guesses: int = number_field(GUESSES, least=2, most=100)
    """Guesses that are shown, the greedy answer first; fewer where the samples say nothing else."""

    def needs(self, kind: Kind) -> Needs:
        """Samples, and a reply to the question how likely each of some guesses is correct."""
        asks = {VERBALIZED_TOP_K: verbalized_top_k_prompt(self.guesses)}
        return Needs(samples=self.fewest_samples, asks=asks)

    def score(self, scoring: Scoring) -> Scores:
        """The probability stated for the greedy answer; a reply that states none gives no score."""
        return scores_of([stated_probability(text) for text in scoring.asked[VERBALIZED_TOP_K].texts])


def verbalized_top_k_prompt(guesses: int) -> Ask:
    """The second turn; of its reply the first line is read, which is of the greedy answer."""
    return Ask(write=partial(question_of, most=guesses), max_new_tokens=REPLY_TOKENS, stop=("\n",))


def question_of(question: Question, found: Sequence[Generation], *, most: int) -> str:
    """Ask for the probability of each guess, up to so many; what all questions share comes first."""
    texts = list(dict.fromkeys(answer.text for answer in found))[:most]
    guesses = "\n".join(f"G{number}: {text}" for number, text in enumerate(texts, 1))
    return (
        "Below are a question and guesses at its answer, G1 and so on. Reply with the probability, between 0.0 and "
        "1.0, that each guess is correct, P1 for G1 and so on, a line each, nothing else.\n\n"
        f"Question: {question.text}\n{guesses}\nP1:"
    )
