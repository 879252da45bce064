"""p(true): the probability the model gives to its own answer being true (Kadavath et al. 2022, arXiv 2207.05221).

Knows the prompt, which is semantic_uncertainty's (Farquhar et al. 2024), and how its examples are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probegrid.probes.base import AnswerProbe, Ask, Kind, Needs, Scores, Scoring
from probegrid.schema.ranges import number_field, seed_field

if TYPE_CHECKING:
    from probegrid.data.example import Question
    from probegrid.inference.generation import Generation

NAME = "p_true"
TRUE, FALSE = " A", " B"
"""How the model says that the possible answer is true, or false."""


@dataclass
class PTrue(AnswerProbe):
    """Shows the model its greedy answer among its samples and asks whether it is true.

    The score is p(A) / (p(A) + p(B)). Before the question stand worked examples: questions of the few-shot pool that
    the answer prompt does not show, with the model's own answers and whether the greedy one was correct.
    """

    is_probability: ClassVar[bool] = True
    fewest_samples: ClassVar[int] = 1
    num_few_shot: int = number_field(20, least=0, most=100_000)
    """Worked examples (20 is semantic_uncertainty's default); fewer where the pool or the context has no more."""
    seed: int = seed_field()
    """Seed of the draw of the worked examples."""

    def needs(self, kind: Kind) -> Needs:
        """Samples, and the question whether the greedy answer among them is true."""
        ask = Ask(
            write=lambda question, found: block(question.text, [answer.text for answer in found]),
            choices=(TRUE, FALSE),
            show=worked_example,
            worked_examples=self.num_few_shot,
            seed=self.seed,
        )
        return Needs(samples=self.fewest_samples, asks={NAME: ask})

    def score(self, scoring: Scoring) -> Scores:
        """By what it said of each greedy answer; ``log_p_true`` beside it is log p(A), in nats, as in the original."""
        logprobs = scoring.asked[NAME].logprobs
        return Scores(
            [1 / (1 + math.exp(false - true)) for true, false in logprobs],
            {"log_p_true": [true for true, _ in logprobs]},
        )


def block(question: str, answers: Sequence[str]) -> str:
    """Ask whether the first of some answers to a question is true."""
    brainstormed = "".join(f"{answer}\n" for answer in answers)
    return (
        f"Question: {question}\nBrainstormed Answers: {brainstormed}Possible answer: {answers[0]}\n"
        "Is the possible answer:\nA) True\nB) False\nThe possible answer is:"
    )


def worked_example(question: Question, found: Sequence[Generation], is_correct: bool) -> str:
    """A block with what the model should have said of its own greedy answer, and the line break after it."""
    return f"{block(question.text, [answer.text for answer in found])}{TRUE if is_correct else FALSE}\n"
