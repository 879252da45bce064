"""Comparisons as a table: a row a pair of cells.

Knows comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace

from probegrid.evaluation.agreement import Agreement
from probegrid.evaluation.metrics import metric_title
from probegrid.report.cell_tables import ACCURACY_OF, LEAKY
from probegrid.report.comparisons import Comparison, Comparisons, Contrast
from probegrid.report.costs import is_compared_in_cost
from probegrid.report.pairing import context_of, context_values, not_compared, pair_names
from probegrid.report.tables import MISSING, Table, difference_text, p_text


def comparisons_table(comparisons: Comparisons) -> Table:
    """A row a comparison; what could not be compared stands below, with the reason."""
    made = comparisons.made
    context = context_of([one.pair for one in made], comparisons.compared)
    with_answers = any(_is_worth_showing(one.answers, comparisons.compared) for one in made)
    accuracies = [kind for kind in (False, True) if any(_is_of_probe(one) is kind for one in made)]
    titles = [*(metric_title("accuracy", of_probe=kind) for kind in accuracies), "AUROC"]
    return Table(
        name="comparisons",
        caption=f"{comparisons.compared} compared on the same examples: first minus second with its 95% interval, and "
        f"p after Holm over {comparisons.n_tests} tests ({comparisons.family}); the intervals hold together and agree "
        "with p.",
        columns=[
            *(*context, "first", "second", "n"),
            *titles,
            *(["same text", "same verdict", "kappa"] if with_answers else []),
        ],
        rows=[[*_row(one, context, accuracies), *(_agreement(one) if with_answers else [])] for one in made],
        n_names=len(context) + 2,
        records=[_record(one, context) for one in made],
        notes=not_compared(comparisons.not_made, [one.pair for one in made]),
        cells=[(one.pair.first.record.cell, one.pair.second.record.cell) for one in made],
    )


def _is_worth_showing(answers: Agreement | None, compared: str) -> bool:
    """Whether to show how far answers agree: always where that is the question, else where they do not."""
    return answers is not None and (is_compared_in_cost(compared) or answers.same_text < 1)


def _is_of_probe(one: Comparison) -> bool | None:
    """Whether the accuracies are those of probes' calls; None where one is and the other is of answers."""
    kinds = {one.pair.first.is_trained, one.pair.second.is_trained}
    return kinds.pop() if len(kinds) == 1 else None


def _row(one: Comparison, context: Sequence[str], accuracies: Sequence[bool]) -> list[str]:
    leaky = f" {LEAKY}" if one.pair.first.leakage or one.pair.second.leakage else ""
    kind = _is_of_probe(one)
    shown = [one.accuracy if kind is None or kind is column else None for column in accuracies]
    numbers = [_difference(contrast, leaky) for contrast in (*shown, one.auroc)]
    names = [one.pair.first_name, one.pair.second_name]
    return [*context_values(one.pair, context), *names, str(one.n), *numbers]


def _difference(contrast: Contrast | None, mark: str) -> str:
    """The difference with its interval and p-value, or why there is none."""
    if contrast is None:
        return MISSING
    if contrast.difference is None:
        return contrast.note
    p_value = "" if math.isnan(contrast.p_holm) else f" p {p_text(contrast.p_holm)}"
    low, high = contrast.together
    return f"{difference_text(replace(contrast.difference, low=low, high=high))}{p_value}{mark}"


def _agreement(one: Comparison) -> list[str]:
    if one.answers is None:
        return [MISSING] * 3
    return [
        f"{one.answers.same_text:.1%}",
        f"{one.answers.same_verdict:.1%}",
        MISSING if one.answers.kappa != one.answers.kappa else f"{one.answers.kappa:.3f}",
    ]


def _record(one: Comparison, context: Sequence[str]) -> dict[str, object]:
    kind = _is_of_probe(one)
    return {
        **pair_names(one.pair, context),
        "n": one.n,
        "accuracy_of": None if kind is None else ACCURACY_OF[kind],
        **_numbers("accuracy", one.accuracy),
        **_numbers("auroc", one.auroc),
        **(asdict(one.answers) if one.answers else {}),
    }


def _numbers(name: str, contrast: Contrast) -> dict[str, object]:
    values = {
        end: None if contrast.difference is None else getattr(contrast.difference, end)
        for end in ("value", "low", "high", "p_value")
    }
    low, high = contrast.together
    further = {"p_holm": contrast.p_holm, "low_together": low, "high_together": high, "note": contrast.note}
    return {f"{name}_{end}": value for end, value in (values | further).items()}
