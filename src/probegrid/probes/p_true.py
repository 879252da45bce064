"""p(true): the probability the model gives to its own answer being true (Kadavath et al. 2022, arXiv 2207.05221).

Knows the prompt, which is semantic_uncertainty's (Farquhar et al. 2024), and how its examples are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from probegrid.judges.asked import P_TRUE, P_TRUE_HINT, share_of_first
from probegrid.probes.base import AnswerProbe, Ask, Kind, Needs, Scores, Scoring
from probegrid.schema.ranges import number_field, seed_field

if TYPE_CHECKING:
    from probegrid.data.example import Question
    from probegrid.inference.generation import Generation

TRUE, FALSE = " A", " B"
"""How the model says that the possible answer is true, or false."""


class Order(Enum):
    """Where the greedy answer stands among the brainstormed ones."""

    nature = "nature"
    """As in semantic_uncertainty: last where the model is asked, first in the worked examples, whose lines end in a
    space."""
    greedy_first = "greedy_first"
    """First in both."""


@dataclass
class PTrue(AnswerProbe):
    """Shows the model its greedy answer among its samples and asks whether it is true.

    The score is p(A) / (p(A) + p(B)). Before the question stand worked examples: questions of the few-shot pool that
    the answer prompt does not show, with the model's own answers and whether the greedy one was correct.
    """

    is_probability: ClassVar[bool] = True
    fewest_samples: ClassVar[int] = 1
    order: Order = Order.nature
    """Where the greedy answer stands among the brainstormed ones: ``nature`` or ``greedy_first``."""
    hint: bool = False
    """Ask whether the brainstormed answers match the possible answer, and not whether that is true; the worked examples
    stay as they are, as in semantic_uncertainty."""
    num_few_shot: int = number_field(20, least=0, most=100_000)
    """Worked examples (20 is semantic_uncertainty's default); fewer where the pool or the context has no more."""
    seed: int = seed_field()
    """Seed of the draw of the worked examples."""

    def needs(self, kind: Kind) -> Needs:
        """Samples, and the question whether the greedy answer among them is true."""
        ask = p_true_prompt(self.order, self.num_few_shot, self.seed, hint=self.hint)
        return Needs(samples=self.fewest_samples, asks={self._name: ask})

    def score(self, scoring: Scoring) -> Scores:
        """By what it said of each greedy answer."""
        return Scores([share_of_first(*row) for row in scoring.asked[self._name].logprobs])

    @property
    def _name(self) -> str:
        """Of the prompt."""
        return P_TRUE_HINT if self.hint else P_TRUE


def p_true_prompt(order: Order, num_few_shot: int, seed: int, *, hint: bool = False) -> Ask:
    """The question whether the greedy answer among its samples is true, behind worked examples.

    Args:
        order: of the brainstormed answers.
        num_few_shot: worked examples.
        seed: of their draw, which is that of `P_TRUE` whatever the prompt is called.
        hint: whether it is asked if the samples match it.
    """
    return Ask(
        write=lambda question, found: question_of(question, found, order, hint=hint),
        choices=(TRUE, FALSE),
        show=lambda question, found, is_correct: worked_example(question, found, is_correct, order),
        worked_examples=num_few_shot,
        seed=seed,
        drawn_as=P_TRUE,
    )


def p_true_zero_prompt() -> Ask:
    """The same question with the greedy answer alone, and without worked examples."""
    return Ask(write=lambda question, found: _block(question.text, [], found[0].text), choices=(TRUE, FALSE))


def question_of(question: Question, found: Sequence[Generation], order: Order, *, hint: bool = False) -> str:
    """Ask whether the first of some answers to a question is true; with a hint, whether the others match it."""
    greedy, *samples = [answer.text for answer in found]
    texts = [*samples, greedy] if order is Order.nature else [greedy, *samples]
    return _block(question.text, [f"{text}\n" for text in texts], greedy, _HINT if hint else _ASKED)


def worked_example(question: Question, found: Sequence[Generation], is_correct: bool, order: Order) -> str:
    """A block with what the model should have said of its own greedy answer, and the line break after it."""
    end = " \n" if order is Order.nature else "\n"
    block = _block(question.text, [f"{answer.text}{end}" for answer in found], found[0].text)
    return f"{block}{TRUE if is_correct else FALSE}\n"


_ASKED = "Is the possible answer:\nA) True\nB) False\nThe possible answer is:"
_HINT = (
    "Do the brainstormed answers match the possible answer? Respond with A if they do, if they do not respond with B. "
    "Answer:"
)


def _block(question: str, brainstormed: Sequence[str], possible: str, asked: str = _ASKED) -> str:
    ideas = f"Brainstormed Answers: {''.join(brainstormed)}" if brainstormed else ""
    return f"Question: {question}\n{ideas}Possible answer: {possible}\n{asked}"
