"""Costs as bars, a bar a cell: seconds of loading and reading, tokens a second, peak memory by device.

Knows costs. Cells that differ in seeds alone share a bar, the mean of what was measured in them.
Like stands beside like: a panel is of one dataset and one probe, whose cells read the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probegrid.evaluation.figures import BLUE, GRAY, ORANGE, PALETTE
from probegrid.report.charts import Bar, Chart, ChartPanel
from probegrid.report.columns import label, varying
from probegrid.report.costs import GPU, RAM, Costs, costs_of
from probegrid.report.seeds import OverSeeds

COST_FIGURES = ("seconds", "speed", "memory")
"""Their names."""
READ_APART = ("dataset", "probe")
"""Groups whose choices read other things."""
HATCHED = (
    "hatched: the reading, or part of it, was found in the store, and these are its seconds when it was made"
)
_TIMES = ("load_s", "read_s", "tokens_per_s")


@dataclass(frozen=True)
class _Measured:
    name: str
    costs: Costs


def cost_charts(together: Sequence[OverSeeds]) -> list[Chart]:
    """The figures; none of a measurement that no cell has.

    Args:
        together: cells that ended well, at least one.
    """
    of_cells = costs_of([cell for one in together for cell in one.cells])
    costs = {
        one.merged.record.cell: _mean([of_cells[cell.record.cell] for cell in one.cells]) for one in together
    }
    cells = [one.merged for one in together]
    columns = varying(cells)
    apart = [name for name in columns if name.startswith(READ_APART)]
    within = [name for name in columns if name not in apart]
    blocks: dict[str, list[_Measured]] = defaultdict(list)
    for cell in cells:
        name = label(cell, within) or cell.value("model")
        blocks[label(cell, apart)].append(_Measured(name, costs[cell.record.cell]))
    names = {
        name for each in costs.values() for name, value in each.values.items() if _is_gpu(name) and value > 0
    }
    gpus = {
        name: (f"GPU {_index(name)}", PALETTE[_index(name) % len(PALETTE)])
        for name in sorted(names, key=_index)
    }
    return [
        _chart("seconds", "Seconds", blocks, {"load_s": ("loading", ORANGE), "read_s": ("reading", BLUE)}),
        _chart("speed", "Tokens a second while reading", blocks, {"tokens_per_s": ("", BLUE)}),
        _chart("memory", "Peak memory (GB)", blocks, {RAM: ("the process", GRAY)} | gpus),
    ]


def _mean(costs: Sequence[Costs]) -> Costs:
    """Of what was measured in these cells, where anything was; else of what is told of their readings."""
    measured = [each for each in costs if not each.elsewhere and each.values] or costs
    names = dict.fromkeys(name for each in measured for name in each.values)
    values = {
        name: float(np.mean([each.values[name] for each in measured if name in each.values]))
        for name in names
    }
    return Costs(
        values, elsewhere=any(each.elsewhere for each in measured), loads=any(each.loads for each in costs)
    )


def _is_gpu(measure: str) -> bool:
    return measure.removeprefix(GPU).isdecimal()


def _index(measure: str) -> int:
    return int(measure.removeprefix(GPU))


def _chart(
    name: str,
    x_label: str,
    blocks: Mapping[str, Sequence[_Measured]],
    parts: Mapping[str, tuple[str, str]],
) -> Chart:
    """A bar a cell that has any of the parts, made of them one after another."""
    found = [_panel(title, block, parts) for title, block in blocks.items()]
    drawn = [panel for panel in found if panel is not None]
    note = HATCHED if any(panel.hatched for panel in drawn) else ""
    return Chart(name, x_label, "", drawn, note=note)


def _panel(title: str, block: Sequence[_Measured], parts: Mapping[str, tuple[str, str]]) -> ChartPanel | None:
    kept = [one for one in block if any(part in one.costs.values for part in parts)]
    if not kept:
        return None
    values = {part: np.array([one.costs.values.get(part, 0.0) for one in kept]) for part in parts}
    present = [part for part in parts if values[part].any()] or list(parts)[:1]
    bars = [Bar(parts[part][0] if len(parts) > 1 else "", values[part], parts[part][1]) for part in present]
    hatched = [
        place
        for place, one in enumerate(kept)
        if one.costs.elsewhere and any(part in _TIMES for part in parts)
    ]
    return ChartPanel(title, bars=bars, names=[one.name for one in kept], hatched=hatched)
