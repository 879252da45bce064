"""The same answers under every rule of correctness that applies: how much a verdict, and a score's AUROC, hangs on it.

Knows answers and references as texts. The ranking of scores may change with the rule, which a paper names in a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from probegrid.evaluation.checks import BoolArray
from probegrid.evaluation.correctness import Rule, judge, normalize

_F1 = (0.3, 0.5, 0.7)
_ROUGE = (0.3, 0.5)
_TOKEN = re.compile(r"[a-z0-9]+")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_CLOSE = 1e-6
_NUMERIC_SHARE = 0.5  # of the questions with a reference that is a number, for the rule to apply


def verdicts_by_rule(
    answers: Sequence[str], references: Sequence[Sequence[str]], rule: Rule = Rule.SQUAD
) -> dict[str, BoolArray]:
    """Judge n answers by every rule that applies.

    Args:
        answers: n texts.
        references: the accepted answers of each; none where the question has no answer.
        rule: whose normalization the exact match, F1 and containment use.

    Returns:
        `bool[n]` by rule: ``em``, ``f1>=0.3`` (0.5, 0.7), ``contains``, ``rouge_l>0.3`` (0.5), and ``numeric`` where at
        least half of the questions are answered by a number.
    """
    judged = [judge(answer, wanted, rule) for answer, wanted in zip(answers, references, strict=True)]
    found = {"em": np.array([one.em == 1 for one in judged], dtype=bool)}
    f1 = np.array([one.f1 for one in judged])
    found |= {f"f1>={least}": f1 >= least for least in _F1}
    found["contains"] = np.array(
        [contains(*pair, rule) for pair in zip(answers, references, strict=True)], dtype=bool
    )
    overlap = np.array([rouge_l(*pair) for pair in zip(answers, references, strict=True)])
    found |= {f"rouge_l>{above}": overlap > above for above in _ROUGE}
    numbers = [
        [number for reference in wanted if (number := _whole_number(reference)) is not None]
        for wanted in references
    ]
    if answers and np.mean([bool(wanted) for wanted in numbers]) >= _NUMERIC_SHARE:
        found["numeric"] = np.array(
            [_equals(last_number(answer), wanted) for answer, wanted in zip(answers, numbers, strict=True)],
            dtype=bool,
        )
    return found


def contains(answer: str, references: Sequence[str], rule: Rule = Rule.SQUAD) -> bool:
    """Whether a reference, normalized, stands in the answer at word boundaries; references of nothing do not count."""
    given = f" {normalize(answer, rule)} "
    wanted = [normalized for reference in references if (normalized := normalize(reference, rule))]
    return any(f" {reference} " in given for reference in wanted)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F1 of the longest common subsequence of lower-cased alphanumeric tokens, best over the references (Lin 2004)."""
    given = _TOKEN.findall(answer.lower())
    return max((_rouge(given, _TOKEN.findall(reference.lower())) for reference in references), default=0.0)


def last_number(text: str) -> float | None:
    """The last number of a text, without thousands' commas and currency; None where there is none."""
    numbers = _NUMBER.findall(text)
    return float(numbers[-1].replace(",", "").replace("$", "")) if numbers else None


def _whole_number(reference: str) -> float | None:
    """A reference that is a number and nothing else, or stands after GSM8K's mark."""
    text = reference.rpartition("####")[2].strip().rstrip(".")
    return last_number(text) if _NUMBER.fullmatch(text) else None


def _equals(given: float | None, wanted: Sequence[float]) -> bool:
    return given is not None and any(abs(given - number) <= _CLOSE * max(1, abs(number)) for number in wanted)


def _rouge(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return 0.0
    row = np.zeros(len(wanted) + 1, dtype=int)
    for token in given:
        before = row.copy()
        for place, other in enumerate(wanted, 1):
            row[place] = before[place - 1] + 1 if token == other else max(before[place], row[place - 1])
    shared = int(row[-1])
    return 2 * shared / (len(given) + len(wanted))
