"""What reading a model cost: seconds, tokens a second and peak memory of cells, and of pairs that read the same.

Knows the metrics of a record that are measurements, and which of them a cell took itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probegrid.report.cells import RecordedCell
from probegrid.report.pairing import Pair, Unpaired, find_pairs

COMPARED_IN_COST = ("model", "quantization", "device_map")
"""Groups whose choices answer the same questions at other costs; of any other, cells read other things."""
RAM = "peak_ram_gb"
GPU = "peak_gpu_gb_"
GPU_SUM, GPU_MOST = f"{GPU}sum", f"{GPU}most"


@dataclass(frozen=True)
class Costs:
    """What a cell took to read its model, as far as it is known.

    Attributes:
        values: ``load_s``, ``read_s``, ``tokens_per_s``, ``peak_ram_gb``, ``peak_gpu_gb_<i>`` of each GPU and their
            ``sum`` and ``most``; one that says nothing of this cell's reading is left out.
        elsewhere: whether a reading, or part of it, was not made by this cell but found in the store: ``read_s`` and
            ``tokens_per_s`` are then of when it was made.
        loads: whether the cell loaded the model itself.
    """

    values: Mapping[str, float]
    elsewhere: bool
    loads: bool


@dataclass(frozen=True)
class CostContrast:
    """Two cells that read the same, and what each took."""

    pair: Pair
    first: Costs
    second: Costs

    def ratio(self, measure: str) -> float | None:
        """First over second; None where one of them is not known, or the second is 0."""
        above, below = self.first.values.get(measure), self.second.values.get(measure)
        return None if above is None or not below else above / below


@dataclass(frozen=True)
class CostContrasts:
    """All pairs that are compared in cost.

    Attributes:
        compared: the group or key.
        made: the pairs that read the same.
        not_made: pairs that did not, with the reason.
    """

    compared: str
    made: Sequence[CostContrast]
    not_made: Sequence[Unpaired]


def is_compared_in_cost(compared: str) -> bool:
    """Whether cells that differ in this group or key alone read the same questions."""
    return compared.partition(".")[0] in COMPARED_IN_COST


def contrast_costs(cells: Sequence[RecordedCell], compared: str) -> CostContrasts:
    """Set what cells cost against each other, two and two that differ in one group or key alone.

    Args:
        cells: those that ended well.
        compared: a group or key for which `is_compared_in_cost`.

    Raises:
        ConfigError: no such group or key, or all cells have the same.
    """
    costs = costs_of(cells)
    made: list[CostContrast] = []
    not_made: list[Unpaired] = []
    for pair in find_pairs(cells, compared)[0]:
        if reason := _obstacle(pair, compared):
            not_made.append(Unpaired((pair.first, pair.second), reason))
        else:
            made.append(CostContrast(pair, costs[pair.first.record.cell], costs[pair.second.record.cell]))
    return CostContrasts(compared, made, not_made)


def costs_of(cells: Sequence[RecordedCell]) -> dict[str, Costs]:
    """The costs of each cell by its key.

    A reading that two cells of one model, quantization and device map share has the same rates in both, to the last
    bit: the cell that started first made it.

    Args:
        cells: those that ended well.
    """
    rates: set[tuple[object, ...]] = set()
    readings: set[tuple[object, ...]] = set()
    found: dict[str, Costs] = {}
    for cell in sorted(cells, key=lambda cell: cell.record.provenance.started_at):
        metrics = cell.record.metrics
        rate = (
            *map(cell.value, COMPARED_IN_COST),
            metrics.get("tokens_per_s"),
            metrics.get("examples_per_s"),
        )
        whole = (*rate, metrics.get("read_s"))
        found[cell.record.cell] = _costs(cell, shares_part=rate in rates, shares_all=whole in readings)
        if "read_s" in metrics:
            rates.add(rate)
            readings.add(whole)
    return found


def machine(cell: RecordedCell) -> str:
    """What a cell ran on: the names of its GPUs, or the host whose CPU it took."""
    origin = cell.record.provenance
    return ", ".join(sorted({*origin.gpus})) if cell.gpus and origin.gpus else f"the CPU of {origin.host}"


def _costs(cell: RecordedCell, *, shares_part: bool, shares_all: bool) -> Costs:
    record = cell.record
    values = {name: record.metrics[name] for name in ("read_s", "tokens_per_s") if name in record.metrics}
    loads = record.metrics.get("load_s", 0.0) > 0
    if loads:
        values["load_s"] = record.metrics["load_s"]
    side_by_side = values.get("read_s", 0.0) / record.readers
    was_earlier = "read_s" in record.notes or side_by_side > record.provenance.seconds
    if values and (loads or not (shares_all or was_earlier)):  # else no model was in memory to be measured
        values |= _memory(record.metrics)
    return Costs(values, elsewhere=bool(values) and (shares_part or was_earlier), loads=loads)


def _memory(metrics: Mapping[str, float]) -> dict[str, float]:
    gpus = {name: value for name, value in metrics.items() if name.startswith(GPU)}
    ram = {RAM: metrics[RAM]} if RAM in metrics else {}
    return ram | gpus | ({GPU_SUM: sum(gpus.values()), GPU_MOST: max(gpus.values())} if gpus else {})


def _obstacle(pair: Pair, compared: str) -> str | None:
    """Why the costs of two cells do not compare, if they do not."""
    if not pair.same_place and not compared.startswith("device_map"):
        return "they differ in device_map too"
    if any("read_s" not in cell.record.metrics for cell in (pair.first, pair.second)):
        return "no model is read"
    first, second = pair.first.read_ids, pair.second.read_ids
    if first != second:
        return f"{len(first)} and {len(second)} examples were read, {len(first & second)} of them by both"
    if not compared.startswith("model") and pair.first.prompts_digest != pair.second.prompts_digest:
        return "other prompts were read"
    return None
