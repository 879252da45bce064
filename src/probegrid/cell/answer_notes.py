"""What a reader should know of a run's answers before believing a number made of them.

Knows answers and verdicts: those without text, those that were cut off, those that are all the same, and thoughts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probegrid.evaluation.correctness import Judgement
    from probegrid.inference.generation import Generation

MOST = 0.5
"""Share of the answers from which on it is most of them."""
_FEWEST = 4
"""Answers that say something of a run: of one, all are the same."""


def notes_on_answers(answers: Sequence[Generation], verdicts: Sequence[Judgement]) -> dict[str, str]:
    """Notes by the metric they are on; ``answers`` where most of the answers cannot be what was asked for."""
    ended = Counter(answer.ended for answer in answers if answer.is_given)
    notes = {}
    if empty := ended["empty"]:
        notes["n_empty"] = f"{empty} answers have no text; their likelihood is that of their stop alone"
    if cut := ended["length"]:
        notes["n_ended_length"] = f"{cut} answers were cut at decoding.max_new_tokens"
    if lost := sum(not answer.is_given for answer in answers):
        notes["n_without_answer"] = (
            f"{lost} of {len(answers)} thoughts have no end: there is no answer, which counts as wrong and has no score"
        )
    if found := "; ".join(_most(answers, verdicts)):
        notes["answers"] = found
    return notes


def _most(answers: Sequence[Generation], verdicts: Sequence[Judgement]) -> Iterator[str]:
    """What most of the answers are, where that is nothing one asks for."""
    every = len(answers)
    if every < _FEWEST:
        return
    lost = Counter(answer.ended for answer in answers if not answer.is_given)
    if lost.total() > MOST * every:
        yield (
            f"{lost.total()} of {every} thoughts have no end: {lost['length']} were cut at "
            f"decoding.max_thinking_tokens, {lost['empty']} the model broke off"
        )
    empty = sum(answer.is_given and not answer.text for answer in answers)
    if empty > MOST * every:
        yield f"{empty} of {every} answers are empty: look at the prompt, model.chat_template and prompt.stop"
    cut = sum(answer.ended == "length" and answer.is_given for answer in answers)
    if cut > MOST * every:
        yield (
            f"{cut} of {every} answers were cut at the limit: raise decoding.max_new_tokens, or ask for shorter ones"
        )
    texts = Counter(" ".join(answer.text.split()).casefold() for answer in answers if answer.text)
    for text, count in texts.most_common(1):
        if count > MOST * every:
            right = sum(
                verdict.correct and " ".join(answer.text.split()).casefold() == text
                for answer, verdict in zip(answers, verdicts, strict=True)
            )
            yield f"{count} of {every} answers are the same ({text[:60]!r}), and {right} of them right"


def thought_metrics(answers: Sequence[Generation]) -> dict[str, float]:
    """How many answers were thought about, for how long, and how often none came of it; nothing where none was."""
    lengths = [len(answer.thinking_ids) for answer in answers if answer.thinking is not None]
    if not lengths:
        return {}
    return {
        "n_thoughts": len(lengths),
        "n_thinking_tokens_mean": fmean(lengths),
        "n_without_answer": sum(not answer.is_given for answer in answers),
    }
