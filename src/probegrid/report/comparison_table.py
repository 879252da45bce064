"""Comparisons as a table: a row a pair of cells, or all pairs that differ in seeds alone.

Knows comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from probegrid.evaluation.agreement import Agreement
from probegrid.evaluation.metrics import metric_title
from probegrid.report.cell_tables import ACCURACY_OF, FEW, LEAKY, small_samples
from probegrid.report.comparisons import Comparison, Comparisons, Contrast
from probegrid.report.costs import is_compared_in_cost
from probegrid.report.pairing import Pair, context_of, context_values, not_compared, pair_names
from probegrid.report.seeds import over_seeds
from probegrid.report.tables import MISSING, Table, difference_text, p_text

_LEVEL = 0.05
_CAPTION_OVER_SEEDS = (
    f" Of pairs that differ in seeds alone mean, sd and number, and how many p are below {_LEVEL:g}."
)


def comparisons_table(comparisons: Comparisons) -> Table:
    """A row a comparison; what could not be compared stands below, with the reason."""
    made = comparisons.made
    together = _over_seeds(made)
    is_over_seeds = len(together) < len(made)
    context = context_of([one[0] for one in together], comparisons.compared)
    of_all = context_of([one.pair for one in made], comparisons.compared)
    with_answers = any(_is_worth_showing(one.answers, comparisons.compared) for one in made)
    accuracies = [kind for kind in (False, True) if any(_is_of_probe(one) is kind for one in made)]
    titles = [*(metric_title("accuracy", of_probe=kind) for kind in accuracies), "AUROC"]
    return Table(
        name="comparisons",
        caption=f"{comparisons.compared} compared on the same examples: first minus second with its 95% interval, and "
        f"p after Holm over {comparisons.n_tests} tests ({comparisons.family}); the intervals hold together and agree "
        f"with p.{_CAPTION_OVER_SEEDS if is_over_seeds else ''}",
        columns=[
            *(*context, "first", "second", "n"),
            *titles,
            *(["same text", "same verdict", "kappa"] if with_answers else []),
        ],
        rows=[
            [*_row(pair, ones, context, accuracies), *(_agreement(ones) if with_answers else [])]
            for pair, ones in together
        ],
        n_names=len(context) + 2,
        records=[_record(one, of_all) for one in made],
        notes=[
            *small_samples(ones[0].few for _, ones in together if len(ones) == 1),
            *not_compared(comparisons.not_made, [one.pair for one in made]),
        ],
        cells=[(ones[0].pair.first.record.cell, ones[0].pair.second.record.cell) for _, ones in together],
    )


def _over_seeds(made: Sequence[Comparison]) -> list[tuple[Pair, list[Comparison]]]:
    """The comparisons of cells that differ in seeds alone together, each with the pair that names them."""
    cells = {cell.record.cell: cell for one in made for cell in (one.pair.first, one.pair.second)}
    merged = {cell.record.cell: one.merged for one in over_seeds([*cells.values()]) for cell in one.cells}
    blocks: dict[tuple[str, str], list[Comparison]] = {}
    for one in made:
        sides = (merged[cell.record.cell].record.cell for cell in (one.pair.first, one.pair.second))
        blocks.setdefault((next(sides), next(sides)), []).append(one)
    return [
        (
            replace(
                ones[0].pair,
                first=merged[ones[0].pair.first.record.cell],
                second=merged[ones[0].pair.second.record.cell],
            )
            if len(ones) > 1
            else ones[0].pair,
            ones,
        )
        for ones in blocks.values()
    ]


def _is_worth_showing(answers: Agreement | None, compared: str) -> bool:
    """Whether to show how far answers agree: always where that is the question, else where they do not."""
    return answers is not None and (is_compared_in_cost(compared) or answers.same_text < 1)


def _is_of_probe(one: Comparison) -> bool | None:
    """Whether the accuracies are those of probes' calls; None where one is and the other is of answers."""
    kinds = {one.pair.first.is_trained, one.pair.second.is_trained}
    return kinds.pop() if len(kinds) == 1 else None


def _row(
    pair: Pair, ones: Sequence[Comparison], context: Sequence[str], accuracies: Sequence[bool]
) -> list[str]:
    leaky = f" {LEAKY}" if pair.first.leakage or pair.second.leakage else ""
    few_groups, few = (
        f" {FEW}" if len(ones) == 1 and said else "" for said in (ones[0].few_groups, ones[0].few)
    )
    numbers = [
        _numbers_of([_accuracy(one, column) for one in ones], few_groups + leaky) for column in accuracies
    ] + [_numbers_of([one.auroc for one in ones], few + leaky)]
    sizes = sorted({one.n for one in ones})
    n = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return [*context_values(pair, context), pair.first_name, pair.second_name, n, *numbers]


def _accuracy(one: Comparison, of_probe: bool) -> Contrast | None:
    kind = _is_of_probe(one)
    return one.accuracy if kind is None or kind is of_probe else None


def _numbers_of(contrasts: Sequence[Contrast | None], mark: str) -> str:
    """One contrast as it is; of several seeds mean, standard deviation and number, and how many of them differ."""
    found = [each for each in contrasts if each is not None and each.difference is not None]
    if not found or len(contrasts) == 1:
        return _difference(contrasts[0], mark)
    if len(found) == 1:
        return f"{_difference(found[0], mark)} (1)"
    values = np.array([each.difference.value for each in found if each.difference is not None])
    differ = sum(each.p_holm < _LEVEL for each in found)
    return (
        f"{values.mean():+.3f} ± {values.std(ddof=1):.3f} ({len(found)}) p < {_LEVEL:g} in {differ} of "
        f"{len(found)}{mark}"
    )


def _difference(contrast: Contrast | None, mark: str) -> str:
    """The difference with its interval and p-value, or why there is none."""
    if contrast is None:
        return MISSING
    if contrast.difference is None:
        return contrast.note
    p_value = "" if math.isnan(contrast.p_holm) else f" p {p_text(contrast.p_holm)}"
    low, high = contrast.together
    return f"{difference_text(replace(contrast.difference, low=low, high=high))}{p_value}{mark}"


def _agreement(ones: Sequence[Comparison]) -> list[str]:
    """How far answers agree, on average over seeds."""
    found = [one.answers for one in ones if one.answers is not None]
    if not found:
        return [MISSING] * 3
    kappa = float(np.mean([each.kappa for each in found]))
    return [
        f"{np.mean([each.same_text for each in found]):.1%}",
        f"{np.mean([each.same_verdict for each in found]):.1%}",
        MISSING if math.isnan(kappa) else f"{kappa:.3f}",
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
