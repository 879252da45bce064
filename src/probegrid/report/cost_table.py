"""Costs as tables: a row a cell, and a row a pair of cells with both sides and their ratio.

Knows costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probegrid.evaluation.metrics import metric_title
from probegrid.report.cell_tables import identity
from probegrid.report.cells import RecordedCell
from probegrid.report.columns import shown
from probegrid.report.costs import (
    GPU,
    GPU_MOST,
    GPU_SUM,
    RAM,
    CostContrast,
    CostContrasts,
    Costs,
    costs_of,
    machine,
)
from probegrid.report.pairing import context_of, context_values, not_compared, pair_names
from probegrid.report.tables import MISSING, Table, amount_text, ratio_text

ELSEWHERE = "‡"
"""Stands after the seconds of a reading that was found in the store."""

_TIMES = ("load_s", "read_s", "tokens_per_s")
_TITLES = {GPU_SUM: "peak GPU GB, sum", GPU_MOST: "peak GPU GB, most"}


def costs_table(contrasts: CostContrasts, *, name: str = "costs") -> Table | None:
    """A row a pair; pairs that did not read the same stand below, with the reason; None where there is no pair.

    Args:
        contrasts: the pairs.
        name: of the table.
    """
    made = contrasts.made
    if not made and not contrasts.not_made:
        return None
    pairs = [one.pair for one in made]
    context = context_of(pairs, contrasts.compared)
    sides = [costs for one in made for costs in (one.first, one.second)]
    shown = measures(sides)
    return Table(
        name=name,
        caption=f"What {contrasts.compared} costs in time and memory, the same examples read: first / second = ratio. "
        "Speed-up: how many times as fast the first reads. One measurement each.",
        columns=[*context, "first", "second", "speed-up", *(measure_title(name) for name in shown)],
        rows=[
            [
                *context_values(one.pair, context),
                one.pair.first_name,
                one.pair.second_name,
                _speed_up(one),
                *(_both(one, name) for name in shown),
            ]
            for one in made
        ],
        n_names=len(context) + 2,
        records=[_record(one, context, sides) for one in made],
        notes=[*notes(sides), *_machines(made), *not_compared(contrasts.not_made, pairs)],
        cells=[(one.pair.first.record.cell, one.pair.second.record.cell) for one in made],
    )


def _speed_up(one: CostContrast) -> str:
    """How many times as fast the first reads; marked where a reading was timed by another cell."""
    ratio = one.ratio("read_s")
    if not ratio:
        return MISSING
    return f"{ratio_text(1 / ratio)}{f' {ELSEWHERE}' if one.first.elsewhere or one.second.elsewhere else ''}"


def cell_costs_table(
    cells: Sequence[RecordedCell], *, price_per_gpu_hour: float | None = None
) -> Table | None:
    """A row a cell that read a model; None where none did.

    Args:
        cells: those that ended well.
        price_per_gpu_hour: in any currency; None: no price is shown.
    """
    costs = costs_of(cells)
    read = [cell for cell in cells if costs[cell.record.cell].values]
    if not read:
        return None
    columns, price = list(shown(read)), price_per_gpu_hour
    sides = [costs[cell.record.cell] for cell in read]
    measured = measures(sides)
    return Table(
        name="cell_costs",
        caption="What each cell took to read its model. One measurement each."
        + ("" if price is None else f" A GPU-hour is taken to cost {price:g}; a CPU's hours are not priced."),
        columns=[*columns, *map(measure_title, measured), *([] if price is None else ["GPU-hours", "price"])],
        rows=[
            [
                *map(cell.value, columns),
                *(measure_text(costs[cell.record.cell], name) for name in measured),
                *([] if price is None else _priced(cell, costs[cell.record.cell], price)),
            ]
            for cell in read
        ],
        n_names=len(columns),
        records=[
            identity(cell, columns)
            | dict(costs[cell.record.cell].values)
            | {"timed_elsewhere": costs[cell.record.cell].elsewhere, "machine": machine(cell)}
            | ({} if price is None else {"gpu_hours": gpu_hours(cell), "price": _price(cell, price)})
            for cell in read
        ],
        notes=notes(sides),
    )


def gpu_hours(cell: RecordedCell) -> float | None:
    """Hours of loading and reading times the GPUs that were held; None on a CPU, or where nothing was read."""
    return cell.device_hours if cell.gpus else None


def _price(cell: RecordedCell, price: float) -> float | None:
    hours = gpu_hours(cell)
    return None if hours is None else hours * price


def _priced(cell: RecordedCell, costs: Costs, price: float) -> list[str]:
    """GPU-hours and their price; marked where the reading was paid for by another cell."""
    hours, mark = gpu_hours(cell), f" {ELSEWHERE}" if costs.elsewhere else ""
    return [MISSING] * 2 if hours is None else [f"{amount_text(one)}{mark}" for one in (hours, hours * price)]


def measures(costs: Sequence[Costs]) -> list[str]:
    """What any of these cells was measured in and a table has room for; one GPU needs no sum."""
    known = {name for each in costs for name in each.values}
    names = [name for name in (*_TIMES, RAM) if name in known]
    if not any(each.values.get(GPU_SUM) for each in costs):
        return names
    return [*names, *((GPU_SUM, GPU_MOST) if f"{GPU}1" in known else (GPU_SUM,))]


def measure_title(measure: str) -> str:
    """What a measurement is called in a table."""
    return _TITLES.get(measure) or metric_title(measure, of_probe=False)


def measure_text(costs: Costs, measure: str) -> str:
    """The value, marked where the reading was found in the store; a dash where it says nothing of the cell."""
    value = costs.values.get(measure)
    if value is None:
        return MISSING
    is_marked = costs.elsewhere and measure in ("read_s", "tokens_per_s")
    return f"{amount_text(value)}{f' {ELSEWHERE}' if is_marked else ''}"


def notes(costs: Sequence[Costs]) -> list[str]:
    """What must be known of some of these cells' numbers."""
    read = [each for each in costs if each.values]
    held = [
        f"{MISSING} the model was not loaded for this cell: an earlier cell of its pack had loaded it, or the store "
        "had the reading. Peak RAM is of the process, with the earlier cells of its pack."
    ]
    elsewhere = [
        f"{ELSEWHERE} the reading, or part of it, was not timed in this cell: it was found in the store, and these are "
        "the seconds it took when it was made."
    ]
    return [
        *(held if not all(each.loads for each in read) else []),
        *(elsewhere if any(each.elsewhere for each in read) else []),
    ]


def _both(one: CostContrast, measure: str) -> str:
    sides = f"{measure_text(one.first, measure)} / {measure_text(one.second, measure)}"
    ratio = one.ratio(measure)
    if sides == f"{MISSING} / {MISSING}":
        return MISSING
    return sides if ratio is None else f"{sides} = {ratio_text(ratio)}"


def _record(one: CostContrast, context: Sequence[str], sides: Sequence[Costs]) -> dict[str, object]:
    names = dict.fromkeys(name for each in sides for name in each.values)
    values: dict[str, object] = {}
    for name in names:
        values |= {
            f"{name}_first": one.first.values.get(name),
            f"{name}_second": one.second.values.get(name),
            f"{name}_ratio": one.ratio(name),
        }
    return {**pair_names(one.pair, context), **values, **_flags(one)}


def _flags(one: CostContrast) -> Mapping[str, object]:
    return {
        "timed_elsewhere_first": one.first.elsewhere,
        "timed_elsewhere_second": one.second.elsewhere,
        "machine_first": machine(one.pair.first),
        "machine_second": machine(one.pair.second),
    }


def _machines(made: Sequence[CostContrast]) -> list[str]:
    """Pairs that were read on unlike machines, for their ratio is of the machines too."""
    unlike = dict.fromkeys(
        f"{one.pair.first_name} was read on {machine(one.pair.first)}, {one.pair.second_name} on "
        f"{machine(one.pair.second)}: the ratio is of the machines too."
        for one in made
        if machine(one.pair.first) != machine(one.pair.second)
    )
    return [*unlike]
