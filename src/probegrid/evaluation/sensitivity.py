"""The same answers under every rule of correctness that applies: how much a verdict, and a score's AUROC, hangs on it.

Knows the rules, and answers and references as texts. The ranking of scores may change with the rule, which a paper
names in a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from probegrid.evaluation.checks import BoolArray
from probegrid.evaluation.rules import TriviaQA, find_rule

_F1 = (0.3, 0.5, 0.7)
_ROUGE = (0.3, 0.5)
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_NUMERIC_SHARE = 0.5  # of the questions with a reference that is a number, for the rule to apply


def verdicts_by_rule(
    answers: Sequence[str | None],
    references: Sequence[Sequence[str]],
    rule: str = "squad",
    *,
    language: str | None = None,
) -> dict[str, BoolArray]:
    """Judge n answers by every rule that applies, each as ``dataset.rule`` of its name would.

    Args:
        answers: n texts, of each the part that is judged; None where nothing was found, which is wrong.
        references: the accepted answers of each; none where the question has no answer.
        rule: the chosen one. Exact match, F1 and containment use its normalization where that is TriviaQA's, else
            SQuAD's.
        language: of the answers; None: English.

    Returns:
        `bool[n]` by rule: ``em``, ``f1>=0.3`` (0.5, 0.7), ``contains``, ``rouge_l>0.3`` (0.5), and ``numeric`` where at
        least half of the questions are answered by a number.
    """
    pairs = list(zip(answers, references, strict=True))
    words = find_rule(TriviaQA.name) if rule == TriviaQA.name else find_rule("exact", language=language)
    overlap, known = find_rule("rouge_l"), language if rule != TriviaQA.name else None
    overlap.language = known
    judged = [None if answer is None else words.judge(answer, wanted) for answer, wanted in pairs]
    shared = [None if answer is None else overlap.judge(answer, wanted) for answer, wanted in pairs]
    f1 = np.array([-1.0 if one is None else one.f1 for one in judged])
    rouge = np.array([-1.0 if one is None else one.f1 for one in shared])
    found = {"em": np.array([one is not None and one.em == 1 for one in judged], dtype=bool)}
    found |= {f"f1>={least}": f1 >= least for least in _F1}
    found["contains"] = np.array(
        [answer is not None and contains(answer, wanted, words.normalize) for answer, wanted in pairs],
        dtype=bool,
    )
    found |= {f"rouge_l>{above}": rouge > above for above in _ROUGE}
    if pairs and np.mean([any(map(_is_number, wanted)) for wanted in references]) >= _NUMERIC_SHARE:
        found["numeric"] = np.array(
            [answer is not None and _numeric(answer, wanted) for answer, wanted in pairs], dtype=bool
        )
    return found


def contains(answer: str, references: Sequence[str], normalize: Callable[[str], str]) -> bool:
    """Whether a reference, normalized, stands in the answer at word boundaries; references of nothing do not count.

    Where none is left, an answer of nothing is right.
    """
    given = normalize(answer)
    wanted = [normalized for reference in references if (normalized := normalize(reference))]
    return any(f" {reference} " in f" {given} " for reference in wanted) if wanted else not given


def _numeric(answer: str, references: Sequence[str]) -> bool:
    rule = find_rule("numeric")
    found = rule.extract(answer)
    return found is not None and rule.judge(found.text, references).correct


def _is_number(reference: str) -> bool:
    """Whether a reference is a number and nothing else, or stands after GSM8K's mark."""
    return _NUMBER.fullmatch(reference.rpartition("####")[2].strip().rstrip(".")) is not None
