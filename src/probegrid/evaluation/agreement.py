"""How far two sets of answers to the same questions agree, and how far their verdicts do.

Knows texts and verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from probegrid.evaluation.checks import as_labels
from probegrid.evaluation.correctness import Rule, normalize


@dataclass(frozen=True)
class Agreement:
    """Two sets of answers side by side.

    Attributes:
        same_text: share of answers that are the same text, normalized as SQuAD's scorer does.
        same_verdict: share of answers that are both correct or both wrong.
        kappa: Cohen's kappa of the verdicts (1960), agreement beyond chance; `nan` where both give one verdict only.
        only_first: answers correct in the first set alone.
        only_second: answers correct in the second set alone.
    """

    same_text: float
    same_verdict: float
    kappa: float
    only_first: int
    only_second: int


def agreement(
    first: Sequence[str], second: Sequence[str], first_correct: ArrayLike, second_correct: ArrayLike
) -> Agreement:
    """Hold two sets of answers against each other.

    Args:
        first: n answers, n at least 1.
        second: n answers to the same questions in the same order.
        first_correct: `bool[n]`, the verdicts.
        second_correct: `bool[n]`, likewise.

    Raises:
        ValueError: the lengths differ, or there is no answer.
    """
    right, other_right = as_labels(first_correct), as_labels(second_correct)
    if not len(first) == len(second) == len(right) == len(other_right) or not first:
        raise ValueError(
            f"as many answers and verdicts on both sides are needed, at least one; got {len(first)}"
        )
    same = [
        one == other or normalize(one, Rule.SQUAD) == normalize(other, Rule.SQUAD)
        for one, other in zip(first, second, strict=True)
    ]
    observed = float(np.mean(right == other_right))
    share, other_share = right.mean(), other_right.mean()
    by_chance = float(share * other_share + (1 - share) * (1 - other_share))
    return Agreement(
        same_text=float(np.mean(same)),
        same_verdict=observed,
        kappa=(observed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan"),
        only_first=int(np.count_nonzero(right & ~other_right)),
        only_second=int(np.count_nonzero(~right & other_right)),
    )
