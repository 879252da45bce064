"""Questions about the embedded world, which the embedded model knows in part; needs no file and no network.

Knows the world's facts; each question has one answer, and the two questions on an entity are a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probegrid.data.example import Question, QuestionSet
from probegrid.data.sampling import draw
from probegrid.embedded import world
from probegrid.errors import ConfigError
from probegrid.schema import DatasetConfig


@dataclass
class FactsConfig(DatasetConfig):
    """The embedded questions; they have one split and no path."""

    holds_questions: ClassVar[bool] = True
    """Always."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None:
            raise ConfigError(
                f"dataset=facts is embedded and reads no path ({self.path}); your own file is dataset=jsonl."
            )


def load(config: FactsConfig) -> QuestionSet:
    """Draw the questions; the few-shot examples are the facts that the world keeps for them."""
    pool = [_question(fact) for fact in world.question_facts()]
    asked, notes = draw(pool, config, "questions", "the embedded world")
    return QuestionSet(asked, tuple(map(_question, world.shot_facts())), "squad", notes)


def _question(fact: world.Fact) -> Question:
    return Question(id=f"fact-{fact.id}", text=fact.question, references=(fact.answer,), group=fact.entity)
