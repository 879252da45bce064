"""The tables of a report: every cell's numbers, its companion scores, and the cells that failed.

Knows cells and metric names.
"""

from __future__ import annotations

from collections.abc import Sequence

from probegrid.report.cells import GROUPS, RecordedCell
from probegrid.report.columns import common, shown
from probegrid.report.tables import MISSING, Table, estimate_text

LEAKY = "†"
"""Stands after the numbers of a cell whose split leaks."""

MAIN_METRICS = ("accuracy", "auroc")
"""What the terminal shows."""
MORE_METRICS = ("auprc", "aurc", "ece", "text_auroc", "control_auroc")
"""What the files show besides, where any cell has it."""

TITLES = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "aurc": "AURC",
    "ece": "ECE",
    "text_auroc": "AUROC of text",
    "control_auroc": "AUROC of control",
}


def cells_table(cells: Sequence[RecordedCell], metrics: Sequence[str]) -> Table:
    """A row a cell that ended well: what varies, the number of examples, each metric with its interval.

    Args:
        cells: those that ended well, at least one.
        metrics: names; one that no cell has is left out.
    """
    columns = shown(cells)
    metrics = [name for name in metrics if any(cell.metric(name) is not None for cell in cells)]
    rows = [
        [
            *map(cell.value, columns),
            f"{cell.record.metrics['n']:.0f}",
            *(_number(cell, name) for name in metrics),
        ]
        for cell in cells
    ]
    return Table(
        name="table",
        caption=_caption(cells, columns),
        columns=[*columns, "n", *(TITLES[name] for name in metrics)],
        rows=rows,
        n_names=len(columns),
        records=[_identity(cell, columns) | dict(cell.record.metrics) for cell in cells],
        notes=_leaks(cells),
    )


def other_scores_table(cells: Sequence[RecordedCell]) -> Table | None:
    """A row a cell and a score that came from the same reading: its AUROC; None where no cell has any."""
    pairs = [
        (cell, name)
        for cell in cells
        for name in cell.other_scores
        if cell.metric(f"{name}_auroc") is not None
    ]
    if not pairs:
        return None
    columns = shown(cells)
    return Table(
        name="other_scores",
        caption="Other scores of the same readings.",
        columns=[*columns, "score", "AUROC"],
        rows=[
            [*map(cell.value, columns), name.replace("_", " "), estimate_text(cell.estimate(f"{name}_auroc"))]
            for cell, name in pairs
        ],
        n_names=len(columns) + 1,
        records=[
            _identity(cell, columns) | {"score": name} | _ends(cell, f"{name}_auroc") for cell, name in pairs
        ],
    )


def failed_table(cells: Sequence[RecordedCell]) -> Table | None:
    """A row a cell that failed and the reason; None where none did."""
    if not cells:
        return None
    columns = shown(cells)
    reasons = [
        f"{cell.record.error.type}: {cell.record.error.message.strip().partition(chr(10))[0]}"
        if cell.record.error
        else MISSING
        for cell in cells
    ]
    return Table(
        name="failed",
        caption=f"{len(cells)} cells failed.",
        columns=[*columns, "reason"],
        rows=[[*map(cell.value, columns), reason] for cell, reason in zip(cells, reasons, strict=True)],
        n_names=len(columns) + 1,
        records=[
            _identity(cell, columns) | {"reason": reason} for cell, reason in zip(cells, reasons, strict=True)
        ],
    )


def _number(cell: RecordedCell, name: str) -> str:
    text = estimate_text(cell.estimate(name))
    return f"{text} {LEAKY}" if cell.leakage and text != MISSING else text


def _identity(cell: RecordedCell, columns: Sequence[str]) -> dict[str, object]:
    named = {name: cell.value(name) for name in dict.fromkeys((*GROUPS, *columns))}
    return {**named, "key": cell.record.cell}


def _ends(cell: RecordedCell, name: str) -> dict[str, object]:
    estimate = cell.estimate(name)
    assert estimate is not None
    return {"auroc": estimate.value, "auroc_ci_low": estimate.low, "auroc_ci_high": estimate.high}


def _caption(cells: Sequence[RecordedCell], columns: Sequence[str]) -> str:
    shared = ", ".join(f"{group} {value}" for group, value in common(cells, columns).items())
    count = f"{len(cells)} cells" if len(cells) > 1 else "1 cell"
    return f"{count}{f', all with {shared}' if shared else ''}. Values with their 95% intervals."


def _leaks(cells: Sequence[RecordedCell]) -> list[str]:
    reasons = dict.fromkeys(cell.leakage for cell in cells if cell.leakage)
    return [f"{LEAKY} too good, for something leaks: {'; '.join(reasons)}"] if reasons else []
