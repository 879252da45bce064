"""The examples of the cells as they were read: the first of each dataset, and what was said of them.

Knows cells and the note that holds the look.
"""

from __future__ import annotations

from collections.abc import Sequence

from probegrid.report.cells import RecordedCell
from probegrid.report.tables import Table

LOOK = "examples"
"""The note of a record that holds the look at its examples."""


def examples_table(cells: Sequence[RecordedCell]) -> Table | None:
    """A row a dataset and a line of its look; None where no cell has one, as in records from before there was any."""
    looks = dict.fromkeys((cell.value("dataset"), cell.record.notes.get(LOOK, "")) for cell in cells)
    lines = ((dataset, line.strip()) for dataset, look in looks for line in look.splitlines())
    rows = [
        [*line] for line in dict.fromkeys(lines)
    ]  # seeds, and probes with options, read the same and others
    if not rows:
        return None
    return Table(
        name=LOOK,
        caption="The first examples of each dataset as they were read, and what is to be known of them.",
        columns=["dataset", "as read"],
        rows=rows,
        n_names=2,
        records=[{"dataset": dataset, "as_read": line} for dataset, line in rows],
    )
