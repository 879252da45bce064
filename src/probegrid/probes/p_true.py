"""p(true): the probability the model gives to its own answer being true (Kadavath et al. 2022, arXiv 2207.05221).

Knows the prompt, which is semantic_uncertainty's (Farquhar et al. 2024), and how its examples are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, ClassVar

from probegrid.errors import ConfigError
from probegrid.probes.base import AnswerProbe, Scores, Scoring

if TYPE_CHECKING:
    from probegrid.data.example import Question, QuestionSet
    from probegrid.readings.answers import AnswerReading
    from probegrid.readings.session import Respondent
    from probegrid.schema import PromptConfig

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
    num_few_shot: int = 20
    """Worked examples (20 is semantic_uncertainty's default); fewer where the pool or the context has no more."""
    seed: int = 0
    """Seed of the draw of the worked examples."""

    def __post_init__(self) -> None:
        if self.num_few_shot < 0:
            raise ConfigError(f"probe.num_few_shot={self.num_few_shot} is negative; give 0 or more.")

    def check(self, respondent: Respondent) -> None:
        """Refuse a tokenizer in which a choice is no single token."""
        respondent.choice_ids(block("", ["", ""]), [TRUE, FALSE])

    def score(self, scoring: Scoring) -> Scores:
        """Ask about every greedy answer; ``log_p_true`` beside it is log p(A) alone, in nats, as in the original."""
        respondent, data = scoring.respondent, scoring.data
        shots = draw_shots(data, respondent.config.prompt, self.num_few_shot, self.seed)
        examples: list[str] = []
        read_s = 0.0
        if shots:
            shown = respondent.answer(replace(data, questions=shots))
            examples, read_s = worked_examples(shown, data.rule), shown.read_s
        asked = blocks_of(scoring.reading)
        examples = examples[: fitting(asked, examples, respondent)]
        prompts = respondent.tokenize(["".join([*examples, question]) for question in asked])
        found = respondent.choose(prompts, respondent.choice_ids(asked[0], [TRUE, FALSE]))
        notes = []
        if len(examples) < self.num_few_shot:
            why = (
                "the few-shot pool has no more"
                if len(shots) == len(examples)
                else "the context holds no more"
            )
            notes = [f"p(true) is asked with {len(examples)} of {self.num_few_shot} worked examples: {why}"]
        return Scores(
            [1 / (1 + math.exp(false - true)) for true, false in found.logprobs],
            {"log_p_true": [true for true, _ in found.logprobs]},
            read_s=read_s + found.read_s,
            notes=notes,
        )


def block(question: str, answers: Sequence[str]) -> str:
    """Ask whether the first of some answers to a question is true."""
    brainstormed = "".join(f"{answer}\n" for answer in answers)
    return (
        f"Question: {question}\nBrainstormed Answers: {brainstormed}Possible answer: {answers[0]}\n"
        "Is the possible answer:\nA) True\nB) False\nThe possible answer is:"
    )


def blocks_of(reading: AnswerReading) -> list[str]:
    """The block of each question of a reading: its greedy answer first, then its samples."""
    return [
        block(prompt.question.text, [answer.text for answer in found])
        for prompt, found in zip(reading.prompts, reading.generations, strict=True)
    ]


def worked_examples(reading: AnswerReading, rule: str) -> list[str]:
    """Blocks with what the model should have said of its own greedy answers, each with the line break after it."""
    from probegrid.evaluation.correctness import Rule, judge

    correct = [
        judge(answer.text, prompt.question.references, Rule(rule)).correct
        for prompt, answer in zip(reading.prompts, reading.greedy, strict=True)
    ]
    return [
        f"{asked}{TRUE if right else FALSE}\n"
        for asked, right in zip(blocks_of(reading), correct, strict=True)
    ]


def draw_shots(data: QuestionSet, prompt: PromptConfig, count: int, seed: int) -> tuple[Question, ...]:
    """Draw the worked examples' questions, as many as there are up to ``count``, none of them in the answer prompt."""
    from probegrid.readings.prompts import choose_shots

    shown = {question.id for question in choose_shots(data, prompt)}
    pool = [question for question in data.shots if question.id not in shown]
    return tuple(Random(f"p_true/{seed}").sample(pool, min(count, len(pool))))


def fitting(asked: Sequence[str], examples: Sequence[str], respondent: Respondent) -> int:
    """Most worked examples with which the longest prompt, and a token after it, fit in the model's context.

    Raises:
        ConfigError: the longest question with its answers does not fit even alone.
    """
    context = respondent.checkpoint.context
    if context is None:
        return len(examples)
    lengths = [len(ids) for ids in respondent.tokenize(asked)]
    longest = asked[lengths.index(max(lengths))]
    for count in range(len(examples), -1, -1):
        (ids,) = respondent.tokenize(["".join([*examples[:count], longest])])
        if len(ids) < context:
            return count
    raise ConfigError(
        f"a question with its brainstormed answers has {max(lengths)} tokens, but the model's context is {context}; "
        "lower decoding.num_generations or decoding.max_new_tokens."
    )
