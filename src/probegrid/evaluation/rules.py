"""Rules of correctness by name: the official ones, and those that come through the door ``probegrid.rules``.

Knows which rules there are; how each judges is its own.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

from probegrid.errors import ConfigError, closest
from probegrid.evaluation import correctness
from probegrid.evaluation.correctness import Judgement
from probegrid.plugins import VARIABLE, from_outside


class CorrectnessRule(ABC):
    """Holds an answer against its references; a dataset names it by ``dataset.rule``."""

    name: ClassVar[str]
    """By which a dataset, and a key, name it."""

    @abstractmethod
    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """Hold one answer against all its references; without any, the question has no answer."""

    def normalize(self, text: str) -> str:
        """What two answers must share to be the same answer; by itself, all but case and white space."""
        return " ".join(text.lower().split())


class Squad(CorrectnessRule):
    """SQuAD's normalization; correct when F1 is at least 0.5."""

    name = "squad"

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """As `correctness.judge`."""
        return correctness.judge(answer, references, correctness.Rule.SQUAD)

    def normalize(self, text: str) -> str:
        """As the official scorer does."""
        return correctness.normalize(text, correctness.Rule.SQUAD)


class TriviaQA(CorrectnessRule):
    """TriviaQA's normalization; correct on exact match with any alias."""

    name = "trivia_qa"

    def judge(self, answer: str, references: Sequence[str]) -> Judgement:
        """As `correctness.judge`."""
        return correctness.judge(answer, references, correctness.Rule.TRIVIA_QA)

    def normalize(self, text: str) -> str:
        """As the official scorer does."""
        return correctness.normalize(text, correctness.Rule.TRIVIA_QA)


def all_rules() -> dict[str, CorrectnessRule]:
    """Every rule by its name, ours first.

    Raises:
        ConfigError: two have one name.
    """
    return dict(_all_rules(os.environ.get(VARIABLE, "")))


@cache
def _all_rules(_named: str) -> dict[str, CorrectnessRule]:
    """The rules, looked for once as long as the same modules are named."""
    ours: tuple[type[CorrectnessRule], ...] = (Squad, TriviaQA)
    found: dict[str, CorrectnessRule] = {}
    for rule in (*ours, *from_outside("rules", CorrectnessRule)):  # type: ignore[type-abstract]  # a base, not made
        if rule.name in found:
            raise ConfigError(
                f"two rules of correctness are called {rule.name} ({rule.__module__} and "
                f"{type(found[rule.name]).__module__}); give one another name."
            )
        found[rule.name] = rule()
    return found


def find_rule(name: str) -> CorrectnessRule:
    """The rule of a name.

    Raises:
        ConfigError: there is none.
    """
    rules = all_rules()
    if name not in rules:
        raise ConfigError(f"dataset.rule={name} is not known; {closest(name, rules)}.")
    return rules[name]
