"""``examples.html``: the examples of one cell, or of two side by side, in one file that a browser lists and filters.

Knows what a page of examples holds, and the template.
"""

from __future__ import annotations

from collections.abc import Sequence

from probegrid.evaluation.figures import interval_text
from probegrid.evaluation.intervals import Estimate
from probegrid.evaluation.metrics import is_of_probe, metric_title
from probegrid.report.embedding import asset, data_block, policy, render, verbatim
from probegrid.report.example_rows import CellTables, example_data, notes_on
from probegrid.tracking.record import CellRecord
from probegrid.tracking.redaction import redact

EXAMPLES_FILE = "examples.html"
_HEADLINES = ("accuracy", "f1", "auroc")


def examples_page(*cells: CellTables) -> str:
    """The page of a cell, or of two side by side.

    Args:
        cells: one or two that ended well.

    Raises:
        ValueError: one has answers and the other statements.
    """
    script = asset("assets/examples.js")
    first, *others = cells
    return render(
        "examples.html.j2",
        {
            "title": redact(first.record.name) if not others else "Two cells side by side",
            "other": " B: ".join(
                [f"A: {redact(first.record.name)};", *(redact(one.record.name) for one in others)]
            )
            if others
            else "",
            "facts": [fact for cell in cells for fact in _facts(cell.record, letter=_letter(cells, cell))],
            "notes": notes_on(cells),
            "policy": policy([script]),
            "style": verbatim(asset("assets/base.css") + asset("assets/examples.css")),
            "data": verbatim(data_block(example_data(cells))),
            "script": verbatim(script),
        },
    )


def _letter(cells: Sequence[CellTables], cell: CellTables) -> str:
    return "" if len(cells) == 1 else f"{'AB'[[*cells].index(cell)]} "


def _facts(record: CellRecord, letter: str) -> list[str]:
    """The numbers that a cell is judged by, for its page's head."""
    facts = [f"{letter}n {record.metrics['n']:.0f}"] if "n" in record.metrics else []
    for name in _HEADLINES:
        if name in record.metrics:
            low, high = (record.metrics.get(f"{name}_ci_{end}", float("nan")) for end in ("low", "high"))
            title = metric_title(name, of_probe=is_of_probe(record.metrics))
            facts.append(
                f"{letter}{title} {interval_text(Estimate(record.metrics[name], low, high, n_resamples_valid=0))}"
            )
    return facts
