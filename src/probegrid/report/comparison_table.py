"""Comparisons as a table: a row a pair of cells.

Knows comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from probegrid.report.cell_tables import LEAKY
from probegrid.report.cells import RecordedCell
from probegrid.report.columns import label, varying
from probegrid.report.comparisons import Comparison, Comparisons, Contrast
from probegrid.report.tables import MISSING, Table, difference_text, p_text


def comparisons_table(comparisons: Comparisons) -> Table:
    """A row a comparison; what could not be compared stands below, with the reason."""
    made = comparisons.made
    cells = [cell for one in made for cell in (one.pair.first, one.pair.second)]
    context = [name for name in varying(cells) if not _belongs(name, comparisons.compared)]
    with_answers = any(one.answers is not None and one.answers.same_text < 1 for one in made)
    header = [*context, "first", "second", "n", "accuracy", "p (Holm)", "AUROC", "p (Holm)"]
    return Table(
        name="comparisons",
        caption=f"{comparisons.compared} compared on the same examples: first minus second, 95% intervals, "
        f"p-values after Holm over {comparisons.n_tests} tests.",
        columns=[*header, *(["same text", "same verdict", "kappa"] if with_answers else [])],
        rows=[[*_row(one, context), *(_agreement(one) if with_answers else [])] for one in made],
        n_names=len(context) + 2,
        records=[_record(one, context) for one in made],
        notes=_notes(comparisons),
    )


def _belongs(name: str, compared: str) -> bool:
    return name == compared or name.startswith(f"{compared}.")


def _row(one: Comparison, context: Sequence[str]) -> list[str]:
    leaky = f" {LEAKY}" if one.pair.first.leakage or one.pair.second.leakage else ""
    numbers = [
        text
        for contrast in (one.accuracy, one.auroc)
        for text in (
            difference_text(contrast.difference) + leaky if contrast.difference else contrast.note,
            p_text(contrast.p_holm),
        )
    ]
    names = [one.pair.first_name, one.pair.second_name]
    return [*map(one.pair.first.value, context), *names, str(one.n), *numbers]


def _agreement(one: Comparison) -> list[str]:
    if one.answers is None:
        return [MISSING] * 3
    return [
        f"{one.answers.same_text:.1%}",
        f"{one.answers.same_verdict:.1%}",
        MISSING if one.answers.kappa != one.answers.kappa else f"{one.answers.kappa:.3f}",
    ]


def _record(one: Comparison, context: Sequence[str]) -> dict[str, object]:
    pair = one.pair
    return {
        **{name: pair.first.value(name) for name in context},
        "first": pair.first_name,
        "second": pair.second_name,
        "first_cell": pair.first.record.cell,
        "second_cell": pair.second.record.cell,
        "n": one.n,
        **_numbers("accuracy", one.accuracy),
        **_numbers("auroc", one.auroc),
        **(asdict(one.answers) if one.answers else {}),
    }


def _numbers(name: str, contrast: Contrast) -> dict[str, object]:
    values = {
        end: None if contrast.difference is None else getattr(contrast.difference, end)
        for end in ("value", "low", "high", "p_value")
    }
    return {
        f"{name}_{end}": value
        for end, value in (values | {"p_holm": contrast.p_holm, "note": contrast.note}).items()
    }


def _notes(comparisons: Comparisons) -> list[str]:
    cells = [cell for unpaired in comparisons.not_made for cell in unpaired.cells]
    cells += [cell for one in comparisons.made for cell in (one.pair.first, one.pair.second)]
    columns = varying(cells)
    return [
        f"Not compared: {_names(unpaired.cells, columns)}: {unpaired.reason}."
        for unpaired in comparisons.not_made
    ]


def _names(cells: Sequence[RecordedCell], columns: Sequence[str]) -> str:
    return " and ".join(label(cell, columns) or cell.record.name for cell in cells)
