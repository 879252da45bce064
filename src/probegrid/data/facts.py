"""Questions about the embedded world, which the embedded model knows in part; needs no file and no network.

Knows the world's facts; each question has one answer, and the two questions on an entity are a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from probegrid.data.example import Question, QuestionSet
from probegrid.data.sampling import draw
from probegrid.embedded import world
from probegrid.errors import ConfigError
from probegrid.schema import DatasetConfig


class Frequency(Enum):
    """Which facts are asked about, by how often the embedded model met them in training."""

    all = "all"
    """Those of every rank."""
    frequent = "frequent"
    """The half that it met more often, most of which it knows."""
    rare = "rare"
    """The half that it met less often, most of which it guesses."""


@dataclass
class FactsConfig(DatasetConfig):
    """The embedded questions; they have one split and no path."""

    holds_questions: ClassVar[bool] = True
    """Always."""
    frequency: Frequency = Frequency.all
    """``all``, ``frequent`` or ``rare``."""
    rule: str | None = None
    """Rule of correctness by which an answer is judged; null: ``squad``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None:
            raise ConfigError(
                f"dataset=facts is embedded and reads no path ({self.path}); your own file is dataset=jsonl."
            )


def load(config: FactsConfig) -> QuestionSet:
    """Draw the questions; the few-shot examples are the facts that the world keeps for them."""
    pool = [_question(fact) for fact in world.question_facts() if _is_asked(fact, config.frequency)]
    asked, notes = draw(pool, config, "questions", "the embedded world")
    return QuestionSet(asked, tuple(map(_question, world.shot_facts())), "squad", notes)


def _is_asked(fact: world.Fact, frequency: Frequency) -> bool:
    is_rare = fact.rank >= len(world.facts()) // 2
    return frequency is Frequency.all or is_rare == (frequency is Frequency.rare)


def _question(fact: world.Fact) -> Question:
    return Question(id=f"fact-{fact.id}", text=fact.question, references=(fact.answer,), group=fact.entity)
