"""A table of text and raw values, and its forms: CSV, Markdown, LaTeX (booktabs), and the terminal.

Knows rows and columns.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.evaluation.figures import interval_text
from probegrid.evaluation.intervals import Estimate
from probegrid.tracking.escape import csv_field, latex_text, markdown_text, one_line

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as RichTable

MISSING = "-"
"""What stands where a cell has no value."""
_FOUR_DIGITS = 999.5  # what rounds to four digits

_LATEX_TABLE = r"""\begin{{table}}
\centering
\caption{{{caption}}}
\label{{tab:{name}}}
\begin{{tabular}}{{{alignment}}}
\toprule
{header} \\
\midrule
{rows}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


@dataclass(frozen=True)
class Table:
    """Rows for people, and the same rows for programs.

    Attributes:
        name: of its files.
        caption: one line.
        columns: headers of the rows for people.
        rows: text by column.
        n_names: how many columns, from the left, name the row; the others hold numbers.
        records: a mapping a row from name to raw value; `None` and `nan` become an empty field of the CSV.
        notes: lines below the table.
        cells: keys of the cells that each row is of, one or two that are compared; empty where rows lead nowhere.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_names: int
    records: Sequence[Mapping[str, object]]
    notes: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()

    def csv(self) -> str:
        """The records, numbers in full, a column a name."""
        columns = list(dict.fromkeys(name for record in self.records for name in record))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {name: csv_field(_raw(value)) for name, value in record.items()} for record in self.records
        )
        return text.getvalue()

    def markdown(self) -> str:
        """The rows as a table of GitHub's Markdown, caption and notes around it."""
        alignment = ["---" if column < self.n_names else "---:" for column in range(len(self.columns))]
        lines = [_markdown_row(row) for row in (self.columns, alignment, *self.rows)]
        notes = [line for note in self.notes for line in ("", markdown_text(note))]
        return "\n".join([markdown_text(self.caption), "", *lines, *notes]) + "\n"

    def latex(self) -> str:
        r"""The rows as a ``table`` for ``\usepackage{booktabs}``, notes as comments below it."""
        n_numbers = len(self.columns) - self.n_names
        table = _LATEX_TABLE.format(
            caption=latex_text(self.caption),
            name=self.name,
            alignment="l" * self.n_names + "r" * n_numbers,
            header=_latex_row(self.columns),
            rows="\n".join(rf"{_latex_row(row)} \\" for row in self.rows),
        )
        return table + "".join(f"% {one_line(note)}\n" for note in self.notes)

    def rich(self) -> RichTable:
        """The rows for a terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.caption, title_justify="left")
        for position, column in enumerate(self.columns):
            table.add_column(column, justify="left" if position < self.n_names else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(one_line(text)) for text in row))
        return table

    def frame(self) -> pd.DataFrame:
        """The records as a frame, a column a name; `None` where a row has no value."""
        import pandas as pd

        return pd.DataFrame.from_records([dict(record) for record in self.records])

    def files(self) -> dict[str, bytes]:
        """The three forms by file name."""
        forms = {"csv": self.csv(), "md": self.markdown(), "tex": self.latex()}
        return {f"{self.name}.{ending}": text.encode() for ending, text in forms.items()}


def estimate_text(estimate: Estimate | None) -> str:
    """``0.933 [0.907, 0.956]``; a dash where nothing was measured, words where it is not a number."""
    return MISSING if estimate is None else interval_text(estimate)


def difference_text(estimate: Estimate) -> str:
    """As `estimate_text`, with signs: ``+0.012 [-0.003, +0.027]``."""
    if math.isnan(estimate.value):
        return "undefined"
    if math.isnan(estimate.low):
        return f"{estimate.value:+.3f} (no interval)"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def amount_text(value: float) -> str:
    """A measurement to three digits, without a power of ten: ``0.139``, ``15,517``."""
    return f"{value:.3g}" if abs(value) < _FOUR_DIGITS else f"{value:,.0f}"


def ratio_text(value: float) -> str:
    """A ratio to two places where three digits have room for them: ``1.80x``, ``0.0432x``, ``150x``."""
    return f"{value:.2f}x" if 0.1 <= abs(value) < 100 else f"{amount_text(value)}x"


def p_text(p_value: float | None) -> str:
    """A p-value to three places, ``<0.001`` below them; a dash for none."""
    if p_value is None or math.isnan(p_value):
        return MISSING
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(map(latex_text, row))


def _markdown_row(row: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, row))} |"


def _raw(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else value
