"""Which samples mean the same: clusters of the answers to each question.

Knows texts and an equivalence that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from probegrid.evaluation.rules import find_rule

if TYPE_CHECKING:
    from probegrid.data.example import QuestionSet

Pair = tuple[str, str]
Entails = Callable[[Sequence[Pair]], Sequence[bool]]
"""Whether, in each pair, the first text entails the second."""


def equal(texts: Sequence[str]) -> list[int]:
    """Cluster of each text, counted from 0 in order of appearance: equal texts are one cluster."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return [numbers[text] for text in texts]


def mutual_entailment(samples: Sequence[Sequence[str]], entails: Entails) -> list[list[int]]:
    """Cluster of each sample: the first whose first member it entails and is entailed by, else a new one.

    As in semantic_uncertainty (Farquhar et al. 2024) with ``strict_entailment``, but that equal texts are equivalent
    without being asked about. All questions go on together, a cluster a round, so that many pairs are asked at once;
    the second direction only where the first holds, and no pair that is not needed.

    Args:
        samples: for each question, its samples' texts.
        entails: answers many pairs at once.

    Returns:
        For each question, the cluster of each sample, counted from 0 in order of appearance.
    """
    cluster_of: list[dict[str, int]] = [{} for _ in samples]
    unplaced = [list(dict.fromkeys(texts)) for texts in samples]
    number = 0
    while any(unplaced):
        first = {question: texts[0] for question, texts in enumerate(unplaced) if texts}
        for question, text in first.items():
            cluster_of[question][text] = number
        candidates = [(question, text) for question in first for text in unplaced[question][1:]]
        for directed in (_forward, _backward):
            answers = entails([directed(first[question], text) for question, text in candidates])
            candidates = [found for found, holds in zip(candidates, answers, strict=True) if holds]
        for question, text in candidates:
            cluster_of[question][text] = number
        unplaced = [
            [text for text in texts if text not in placed]
            for texts, placed in zip(unplaced, cluster_of, strict=True)
        ]
        number += 1
    return [[placed[text] for text in texts] for texts, placed in zip(samples, cluster_of, strict=True)]


def clusters_of(
    data: QuestionSet, samples: Sequence[Sequence[str]], entails: Entails | None
) -> list[list[int]]:
    """Cluster of each sample of each question.

    Args:
        data: the questions, and the rule that normalizes their answers.
        samples: texts of each question's samples.
        entails: answers many pairs at once, each text behind its question; None: equal texts mean the same.
    """
    if entails is None:
        rule = find_rule(data.rule, **data.rule_settings)
        return [equal([rule.normalize(text) for text in found]) for found in samples]
    stated = [
        [f"{question.text} {text}" for text in found]
        for question, found in zip(data.questions, samples, strict=True)
    ]
    return mutual_entailment(stated, entails)


def _forward(first: str, text: str) -> Pair:
    return first, text


def _backward(first: str, text: str) -> Pair:
    return text, first
