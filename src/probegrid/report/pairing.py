"""Which cells may be compared: those that differ in one group or key and in nothing else that has an effect.

Knows choices and flattened configs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from probegrid.errors import ConfigError, closest
from probegrid.report.cells import GROUPS, RecordedCell
from probegrid.report.columns import has_effect, label, varying
from probegrid.schema import QuantizationMethod

_CONFIG_GROUPS = (*GROUPS, "prompt", "decoding")
_COMES_WITH = {
    "probe": ("decoding.do_sample", "decoding.num_generations", "decoding.temperature", "decoding.seed"),
    "prompt": ("decoding.max_new_tokens",),
}
"""Keys that a choice in a group sets elsewhere: samples come with a probe, the longest answer with a prompt."""

Level = tuple[int, float, str]


@dataclass(frozen=True)
class Pair:
    """Two cells that differ in what is compared alone; their difference is first - second.

    Attributes:
        first, second: the cells; the second is the baseline (the smaller model, fewer shots, no quantization).
        first_name, second_name: the value of what is compared.
    """

    first: RecordedCell
    second: RecordedCell
    first_name: str
    second_name: str


@dataclass(frozen=True)
class Unpaired:
    """A cell, or two, that cannot be compared, and why."""

    cells: tuple[RecordedCell, ...]
    reason: str


def find_pairs(cells: Sequence[RecordedCell], compared: str) -> tuple[list[Pair], list[Unpaired]]:
    """Every pair of cells that differ in ``compared`` alone, and the cells that have no counterpart.

    Args:
        cells: those that ended well.
        compared: a group, with all its keys, or one key.

    Raises:
        ConfigError: no such group or key, or all cells have the same.
    """
    _check(cells, compared)
    blocks = defaultdict(list)
    for cell in cells:
        blocks[_all_else(cell, compared)].append(cell)
    pairs: list[Pair] = []
    alone: list[Unpaired] = []
    for block in blocks.values():
        pairs += _pairs(block, compared)
        if len(block) == 1:
            alone.append(Unpaired((block[0],), f"no other cell differs from it in {compared} alone"))
    return pairs, alone


def _check(cells: Sequence[RecordedCell], compared: str) -> None:
    keys = dict.fromkeys(key for cell in cells for key in cell.config if has_effect(key))
    if compared not in (*_CONFIG_GROUPS, *keys):
        known = (*_CONFIG_GROUPS, *(key for key in keys if len({cell.value(key) for cell in cells}) > 1))
        raise ConfigError(
            f"report.compare={compared} is neither a group nor a key; {closest(compared, known)}."
        )
    if len({tuple(_own(cell, compared)) for cell in cells}) == 1:
        raise ConfigError(
            f"report.compare={compared} has nothing to compare: all {len(cells)} recorded cells have the same; "
            f"record others, or compare what differs: {', '.join(varying(cells)) or 'nothing does'}."
        )


def _own(cell: RecordedCell, compared: str) -> Iterator[tuple[str, str]]:
    """The values of what is compared."""
    if compared in cell.record.choices:
        yield compared, cell.record.choices[compared]
    for key, value in cell.config.items():
        if key == compared or key.startswith(f"{compared}."):
            yield key, value


def _all_else(cell: RecordedCell, compared: str) -> frozenset[tuple[str, str]]:
    """Everything that has an effect and is not compared. Where a cell ran (``device_map``) has none."""
    aside = {*_own(cell, compared)}
    followers = _COMES_WITH.get(compared, ())
    everything = [(group, choice) for group, choice in cell.record.choices.items() if group != "device_map"]
    everything += [
        (key, value) for key, value in cell.config.items() if has_effect(key) and key not in followers
    ]
    return frozenset(everything) - aside


def _pairs(block: Sequence[RecordedCell], compared: str) -> Iterator[Pair]:
    names = _level_names(block, compared)
    rising = sorted(range(len(block)), key=lambda index: _level(block[index], compared, names[index]))
    for low, high in combinations(rising, 2):
        yield Pair(block[high], block[low], names[high], names[low])


def _level_names(block: Sequence[RecordedCell], compared: str) -> list[str]:
    """The choice, or the value of the key; where that is the same, with what else tells the cells apart."""
    if (
        compared in GROUPS
        or "." in compared
        or not any(key.startswith(f"{compared}.") for key in block[0].config)
    ):
        names = [cell.value(compared) for cell in block]
    else:  # a group whose choice is not recorded by name
        names = [label(cell, varying(block)) for cell in block]
    if len({*names}) < len(names):
        keys = [key for key in varying(block) if key != compared]
        names = [
            f"{name} {label(cell, keys) or cell.record.cell[:8]}"
            for name, cell in zip(names, block, strict=True)
        ]
    return names


def _level(cell: RecordedCell, compared: str, name: str) -> Level:
    """What is smaller is the baseline: fewer parameters, no quantization, fewer shots; else by name."""
    if compared == "model":
        return 0, cell.parameters or float("inf"), name
    methods = [method.value for method in QuantizationMethod]
    if compared == "quantization" and name in methods:
        return 0, methods.index(name), name
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
