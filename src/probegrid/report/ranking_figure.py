"""Scores ranked by how well they tell right from wrong, like with like: those of the same answers in one panel.

Knows cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from probegrid.evaluation.intervals import Estimate
from probegrid.report.cells import GROUPS, RecordedCell
from probegrid.report.charts import Chart, ChartPanel, Curve, Mark
from probegrid.report.columns import label, varying
from probegrid.report.ranking import Ranking, told_by

_FEWEST = 2
_INTERVALS = "AUROC with its 95% interval"
_MEANS = "AUROC: over seeds mean ± standard deviation, else 95% interval"
OWN, BESIDE = "the probe's own score", "scores of the same reading"


def ranking_chart(cells: Sequence[RecordedCell], *, is_over_seeds: bool = False) -> Chart:
    """AUROC of every score with its interval, the best on top; a panel of what shares model, data and everything else.

    A score that several cells give is shown once. Panels of one score rank nothing and are left out.

    Args:
        cells: those that ended well, means over their seeds.
        is_over_seeds: whether any of them is a mean, whose ends are a standard deviation either way.
    """
    apart = [name for name in varying(cells) if name != "probe" and not name.startswith("probe.")]
    blocks: dict[str, list[RecordedCell]] = defaultdict(list)
    for cell in cells:
        blocks[label(cell, apart)].append(cell)
    found = [_panel(title, block) for title, block in blocks.items()]
    return Chart(
        "ranking",
        _MEANS if is_over_seeds else _INTERVALS,
        "",
        [panel for panel in found if len(panel.names) >= _FEWEST],
        upright=0.5,
    )


def compared_ranking_chart(found: Sequence[Ranking], cells: Sequence[RecordedCell]) -> Chart:
    """AUROC of every score with its interval, told apart by whether it differs from G-NLL after Holm.

    Args:
        found: a panel each, at least one.
        cells: all that ended well, which say what tells the panels apart.
    """
    further = [name for name in told_by(found, cells) if name not in GROUPS]
    return Chart("ranking", _INTERVALS, "", [_compared(one, further) for one in found], upright=0.5)


def _compared(ranking: Ranking, further: Sequence[str]) -> ChartPanel:
    rows = [row for row in ranking.rows if not np.isnan(row.score.area.value)]
    kinds = {
        "G-NLL": [not row.is_alike and not row.differs for row in rows],
        "differs from G-NLL": [row.differs for row in rows],
        "as G-NLL, after Holm": [row.is_alike for row in rows],
    }
    curves = [
        _curve(kind, place, [(row, one.score.area) for row, one in enumerate(rows) if chosen[row]])
        for place, (kind, chosen) in enumerate(kinds.items())
    ]
    names = [row.score.name.replace("_", " ") for row in rows]
    title = f"{ranking.title} {label(ranking.cells[0], further)}".strip()
    return ChartPanel(title, [curve for curve in curves if len(curve.x)], names=names)


def _panel(title: str, cells: Sequence[RecordedCell]) -> ChartPanel:
    columns = [name for name in varying(cells) if name == "probe" or name.startswith("probe.")] or ["probe"]
    own = {label(cell, columns): cell.estimate("auroc") for cell in cells}
    beside = {
        name.replace("_", " "): cell.estimate(f"{name}_auroc")
        for cell in cells
        for name in cell.other_scores
        if name not in own
    }
    both = [(name, one, OWN) for name, one in own.items()] + [
        (name, one, BESIDE) for name, one in beside.items()
    ]
    ranked = [(name, one, kind) for name, one, kind in both if one is not None and not np.isnan(one.value)]
    ranked.sort(key=lambda each: -each[1].value)
    curves = [
        _curve(kind, place, [(row, one) for row, (_, one, of) in enumerate(ranked) if of == kind])
        for place, kind in enumerate((OWN, BESIDE))
    ]
    return ChartPanel(
        title, [curve for curve in curves if len(curve.x)], names=[name for name, _, _ in ranked]
    )


def _curve(name: str, place: int, points: Sequence[tuple[int, Estimate]]) -> Curve:
    return Curve(
        name,
        np.array([one.value for _, one in points]),
        np.array([row for row, _ in points], dtype=np.float64),
        place,
        Mark.points,
        np.array([one.low for _, one in points]),
        np.array([one.high for _, one in points]),
    )
