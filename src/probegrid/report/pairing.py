"""Which cells may be compared: those that differ in one group or key and in nothing else that has an effect.

Knows choices and flattened configs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from probegrid.errors import ConfigError, closest
from probegrid.report.cells import GROUPS, RecordedCell
from probegrid.report.columns import label, varying
from probegrid.schema import QuantizationMethod
from probegrid.tracking.naming import has_effect

_CONFIG_GROUPS = (*GROUPS, "prompt", "decoding")
_COMES_WITH = {
    "probe": ("decoding.do_sample", "decoding.num_generations", "decoding.temperature", "decoding.seed"),
    "prompt": ("decoding.max_new_tokens",),
}
"""Keys that a choice in a group sets elsewhere: samples come with a probe, the longest answer with a prompt."""

_A_PAIR = 2

Level = tuple[int, float, str]


@dataclass(frozen=True)
class Pair:
    """Two cells that differ in what is compared alone; their difference is first - second.

    Attributes:
        first, second: the cells; the second is the baseline (the smaller model, fewer shots, no quantization, fewer
            GPUs).
        first_name, second_name: the value of what is compared; where they ran too, if that differs.
    """

    first: RecordedCell
    second: RecordedCell
    first_name: str
    second_name: str

    @property
    def same_data(self) -> bool:
        """Whether both take their examples from one dataset, by name and by value, in one prompt."""
        return all(
            {*_own(self.first, group)} == {*_own(self.second, group)} for group in ("dataset", "prompt")
        )

    @property
    def same_place(self) -> bool:
        """Whether both have one device map."""
        return _place(self.first) == _place(self.second)


@dataclass(frozen=True)
class Unpaired:
    """A cell, or two, that cannot be compared, and why."""

    cells: tuple[RecordedCell, ...]
    reason: str


def find_pairs(cells: Sequence[RecordedCell], compared: str) -> tuple[list[Pair], list[Unpaired]]:
    """Every pair of cells that differ in ``compared`` alone, and the cells that have no counterpart.

    Where weights lie should not change what a model says: a cell that has no counterpart on its own device map (70B in
    bf16 does not fit where 4 bits do) is paired with such a cell on another, and both names say where.

    Args:
        cells: those that ended well.
        compared: a group, with all its keys, or one key.

    Raises:
        ConfigError: no such group or key, or all cells have the same.
    """
    _check(cells, compared)
    blocks = _blocks(cells, lambda cell: all_else(cell, compared))
    pairs = [pair for block in blocks for pair in _pairs(block, compared)]
    lone = _in_none(cells, pairs)
    pairs += [
        _with_places(pair)
        for block in _blocks(lone, lambda cell: all_else(cell, compared) - _place(cell))
        for pair in _pairs(block, compared)
    ]
    reason = f"no other cell differs from it in {compared} alone"
    return pairs, [Unpaired((cell,), reason) for cell in _in_none(lone, pairs)]


def _in_none(cells: Sequence[RecordedCell], pairs: Sequence[Pair]) -> list[RecordedCell]:
    """The cells that no pair holds."""
    paired = {id(cell) for pair in pairs for cell in (pair.first, pair.second)}
    return [cell for cell in cells if id(cell) not in paired]


def _blocks(
    cells: Sequence[RecordedCell], key: Callable[[RecordedCell], frozenset[tuple[str, str]]]
) -> list[list[RecordedCell]]:
    """Cells of equal key together, in the order they first occur."""
    blocks = defaultdict(list)
    for cell in cells:
        blocks[key(cell)].append(cell)
    return list(blocks.values())


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


def all_else(cell: RecordedCell, compared: str) -> frozenset[tuple[str, str]]:
    """Everything that has an effect and is not compared."""
    followers = _COMES_WITH.get(compared, ())
    everything = [*cell.record.choices.items()]
    everything += [
        (key, value) for key, value in cell.config.items() if has_effect(key) and key not in followers
    ]
    return frozenset(everything) - {*_own(cell, compared)}


def _place(cell: RecordedCell) -> frozenset[tuple[str, str]]:
    """The device map, by name and by value."""
    return frozenset(_own(cell, "device_map"))


def _with_places(pair: Pair) -> Pair:
    """The same pair, named with the device map that each cell has to itself."""
    named = (
        f"{name} on {cell.value('device_map')}"
        for name, cell in ((pair.first_name, pair.first), (pair.second_name, pair.second))
    )
    return Pair(pair.first, pair.second, *named)


def _pairs(block: Sequence[RecordedCell], compared: str) -> Iterator[Pair]:
    """Every two of a block; cells of one config, made before and after a file changed, do not differ in it."""
    if len(block) < _A_PAIR:
        return
    names = _level_names(block, compared)
    rising = sorted(range(len(block)), key=lambda index: _level(block[index], compared, names[index]))
    for low, high in combinations(rising, 2):
        if {*_own(block[high], compared)} != {*_own(block[low], compared)}:
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
        columns = varying(block)
        names = [label(cell, columns) for cell in block]
    if len({*names}) < len(names):
        keys = [key for key in varying(block) if key != compared]
        names = [
            f"{name} {label(cell, keys) or cell.record.cell[:8]}"
            for name, cell in zip(names, block, strict=True)
        ]
    return names


def _level(cell: RecordedCell, compared: str, name: str) -> Level:
    """What is smaller is the baseline: fewer parameters, no quantization, fewer GPUs or shots; else by name.

    Of device maps the CPU alone stands last: whatever of a model is not on a GPU is what the others are spared.
    """
    if compared == "model":
        return 0, cell.parameters or float("inf"), name
    if compared == "device_map":
        return 0, cell.gpus or float("inf"), name
    methods, value = [method.value for method in QuantizationMethod], cell.value(compared)
    if compared == "quantization" and value in methods:
        return 0, methods.index(value), name
    try:
        return 0, float(value), name
    except ValueError:
        return 1, 0.0, name


def context_of(pairs: Sequence[Pair], compared: str) -> list[str]:
    """The columns besides what is compared that tell pairs apart."""
    cells = [cell for pair in pairs for cell in (pair.first, pair.second)]
    return [name for name in varying(cells) if name != compared and not name.startswith(f"{compared}.")]


def context_values(pair: Pair, context: Sequence[str]) -> list[str]:
    """What a pair has in each of these columns; both values where they differ."""
    values = ((pair.first.value(name), pair.second.value(name)) for name in context)
    return [first if first == second else f"{first} / {second}" for first, second in values]


def pair_names(pair: Pair, context: Sequence[str]) -> dict[str, object]:
    """What names a pair, for programs."""
    return {
        **dict(zip(context, context_values(pair, context), strict=True)),
        "first": pair.first_name,
        "second": pair.second_name,
        "first_cell": pair.first.record.cell,
        "second_cell": pair.second.record.cell,
    }


def not_compared(unpaired: Sequence[Unpaired], pairs: Sequence[Pair]) -> list[str]:
    """A sentence for each that is not compared; names tell apart the cells of these and of the pairs."""
    cells = [cell for each in unpaired for cell in each.cells]
    columns = varying([*cells, *(cell for pair in pairs for cell in (pair.first, pair.second))])
    return [
        "Not compared: "
        f"{' and '.join(label(cell, columns) or cell.record.name for cell in each.cells)}: {each.reason}."
        for each in unpaired
    ]
