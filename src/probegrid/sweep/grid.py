"""From a sweeper's overrides to typed cells: each composed once, every mistake listed, each called by its own name.

A key of a swept group goes to the choices that have it, cells that become equal thereby are kept once, and
either is said.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from probegrid.compose import register, to_spec
from probegrid.door.keys import keys_of
from probegrid.door.loader import ROOT, CellLoader, hydra_1_3, search_path
from probegrid.door.mistakes import no_such_key, user_errors
from probegrid.door.overrides import in_grammar, parse
from probegrid.door.places import PLACED, names_apart
from probegrid.errors import ConfigError, UserError
from probegrid.probes import ActivationProbe
from probegrid.progress import Progress
from probegrid.schema import CellSpec
from probegrid.sweep.options import LauncherOptions
from probegrid.sweep.table import say
from probegrid.tracking.redaction import redact_override

_IN_NAME = ("model", "quantization", "dataset", "probe", "model.path", "dataset.path")
_LAUNCHERS = "hydra_plugins.probegrid_launcher."
_FEWEST_SHOWN = 50
"""Cells that take long enough to compose for a bar."""
_OF_SAMPLES = ("decoding.temperature", "decoding.num_generations", "decoding.seed")
"""Keys that greedy decoding has and makes no use of."""
_OF_ACTIVATIONS = ("probe.test_on",)
"""Keys of trained probes that those without activations make no use of."""


@dataclass(frozen=True)
class ComposedCell:
    """A point of the grid: what its cell is, or why it has none."""

    overrides: tuple[str, ...]
    spec: CellSpec | None = None
    error: UserError | None = None


@dataclass(frozen=True)
class _Point:
    """A cell with what became of the keys that were typed for it."""

    cell: ComposedCell
    typed: frozenset[str] = frozenset()
    """Every key that was typed."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """What was chosen, by group; empty where it could not be composed."""
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Keys that were left out, each with the dataclass that lacks it."""
    unused: frozenset[str] = frozenset()
    """Keys that its choices have and make no use of."""


def compose_grid(
    overrides: Sequence[str], config_dir: str | os.PathLike[str] | None = None
) -> tuple[list[ComposedCell], LauncherOptions]:
    """Compose a grid from Python, as ``probegrid -m <overrides>`` would.

    Args:
        overrides: as typed, commas between the values of a key.
        config_dir: a folder of groups of one's own.

    Returns:
        Its cells, and the options of its launcher.

    Raises:
        ConfigError: an override or a file is wrong, there is no cell, or no cell has a key that was typed.
    """
    register()
    with hydra_1_3():
        loader = CellLoader(search_path(config_dir))
        master = loader.load_configuration(ROOT, [*overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        preset = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
        with user_errors():
            grid = product(loader, [*preset, *master.hydra.overrides.task])
        return compose_cells(loader, master, grid), _options(master)


def _options(master: DictConfig) -> LauncherOptions:
    if not str(master.hydra.launcher._target_).startswith(_LAUNCHERS):
        chosen = master.hydra.runtime.choices["hydra/launcher"]
        raise ConfigError(f"hydra/launcher={chosen} takes no grid of probegrid's; choose local or slurm.")
    options: LauncherOptions = instantiate(master.hydra.launcher).options
    return options


def product(loader: ConfigLoader, words: Sequence[str]) -> list[list[str]]:
    """The overrides of each cell: every combination of the values; of a key that is there twice, the last counts.

    Raises:
        ConfigError: the values of a key are not one after another.
    """
    parser = OverridesParser.create(config_loader=loader)
    values: dict[str, list[str]] = {}
    for parsed in parser.parse_overrides([in_grammar(str(word), grid=True) for word in words]):
        key = str(parsed.get_key_element())
        if not parsed.is_sweep_override():
            values[key] = [str(parsed.input_line)]
        elif parsed.is_discrete_sweep():
            values[key] = [_word(key, value) for value in parsed.sweep_iterator()]
        else:
            raise ConfigError(f"{parsed.input_line} lists no values; write {key}=a,b or {key}=range(3).")
    return [list(cell) for cell in itertools.product(*values.values())]


def _word(key: str, value: Any) -> str:
    """An override of one value; Hydra would escape every colon of a text."""
    if isinstance(value, str):
        try:
            if parse(word := f"{key}={value}").value() == value:
                return word
        except HydraException:
            pass
    return f"{key}={Transformer.str(value)}"


def compose_cells(
    loader: CellLoader, master: DictConfig, grid: Sequence[Sequence[str]]
) -> list[ComposedCell]:
    """Compose the cells of a grid.

    Args:
        loader: what composed the master config.
        master: the grid's config.
        grid: the overrides of each cell, one value each.

    Raises:
        ConfigError: there is no cell, or no cell has a key that was typed.
    """
    if not grid:
        raise ConfigError("the grid has no cell: a key of it has no value; give each one or more.")
    points = list(_compose_all(loader, master, grid))
    _refuse_keys_of_none(points)
    points = [_without_unused(loader, master, point, points) for point in points]
    for key in dict.fromkeys(key for point in points for key in point.lacking):
        say(_whereabouts(key, points))
    distinct: dict[frozenset[str], ComposedCell] = {}
    for point in points:
        distinct.setdefault(frozenset(point.cell.overrides), point.cell)
    if len(distinct) < len(points):
        say(f"{len(points)} cells are {len(distinct)}: those that equal another one are kept once")
    return _told_apart(list(distinct.values()))


def told_apart(cells: Sequence[ComposedCell]) -> list[ComposedCell]:
    """The same cells, each named by its choices and by the overrides that tell it from others called so."""
    alike: dict[str, list[set[str]]] = {}
    for cell in cells:
        alike.setdefault(_called(cell), []).append(set(cell.overrides))
    return [
        cell if cell.spec is None else _named(cell, cell.spec, set.intersection(*alike[_called(cell)]))
        for cell in cells
    ]


def _named(cell: ComposedCell, spec: CellSpec, common: Collection[str]) -> ComposedCell:
    rest = tuple(
        redact_override(one) for one in cell.overrides if one not in common and _key(one) not in _IN_NAME
    )
    return replace(cell, spec=replace(spec, overrides=rest))


def cell_names(cells: Sequence[ComposedCell]) -> list[str]:
    """A name for each cell of a grid, different for each; what could not be composed goes by its overrides."""
    return [_called(cell) if cell.spec is None else cell.spec.name for cell in told_apart(cells)]


def _called(cell: ComposedCell) -> str:
    return cell.spec.choices.name if cell.spec else " ".join(map(redact_override, cell.overrides))


def _compose_all(loader: CellLoader, master: DictConfig, grid: Sequence[Sequence[str]]) -> Iterator[_Point]:
    if len(grid) < _FEWEST_SHOWN:
        yield from (_compose(loader, master, overrides) for overrides in grid)
        return
    with Progress() as progress:
        progress.start("composing cells", total=len(grid))
        for overrides in grid:
            yield _compose(loader, master, overrides)
            progress.advance(1)


def _compose(loader: CellLoader, master: DictConfig, overrides: Sequence[str]) -> _Point:
    typed = frozenset(map(_key, overrides))
    try:
        composed = loader.load_cell(master, overrides)
    except UserError as error:
        return _Point(ComposedCell(tuple(overrides), error=error), typed)
    chosen = composed.config.hydra.runtime.choices
    try:
        cell = ComposedCell(composed.overrides, to_spec(composed.config, composed.config.hydra, loader))
    except UserError as error:
        cell = ComposedCell(composed.overrides, error=error)
    choices = {str(group): str(choice) for group, choice in chosen.items()}
    return _Point(cell, typed, choices, composed.lacking, frozenset(_unused(composed.config)))


def _unused(composed: DictConfig) -> Iterator[str]:
    """Keys that every choice of their group has and these choices make no use of."""
    if OmegaConf.select(composed, "decoding.do_sample") is False:
        yield from _OF_SAMPLES
    probe = OmegaConf.get_type(composed, "probe")
    if probe is None or not issubclass(probe, ActivationProbe):
        yield from _OF_ACTIVATIONS


def _refuse_keys_of_none(points: Sequence[_Point]) -> None:
    """Refuse a key that no cell of those that could be composed has."""
    composed = [point for point in points if point.choices]
    for key in dict.fromkeys(key for point in composed for key in point.lacking):
        if all(key in point.lacking for point in composed):
            owners = dict.fromkeys(point.lacking[key] for point in composed)
            raise ConfigError(no_such_key(key, [name for owner in owners for name in keys_of(owner)]))


def _without_unused(
    loader: CellLoader, master: DictConfig, point: _Point, points: Sequence[_Point]
) -> _Point:
    """The cell without the keys that it makes no use of, if another one of the grid does."""
    idle = [
        key
        for key in sorted(point.typed & point.unused - point.lacking.keys())
        if any(other.choices and key not in other.unused | other.lacking.keys() for other in points)
    ]
    if not idle:
        return point
    kept = [one for one in point.cell.overrides if _key(one) not in idle]
    again = _compose(loader, master, kept)
    return replace(again, typed=point.typed, lacking={**point.lacking, **dict.fromkeys(idle, "")})


def _whereabouts(key: str, points: Sequence[_Point]) -> str:
    """To which choices a key went and to which not."""
    group = key.partition(".")[0]
    composed = [point for point in points if point.choices]
    having = dict.fromkeys(point.choices[group] for point in composed if key not in point.lacking)
    lacking = dict.fromkeys(point.choices[group] for point in composed if key in point.lacking)
    if having.keys() & lacking.keys():  # what tells them apart is no choice
        return f"{key} goes to {sum(key not in point.lacking for point in composed)} of {len(points)} cells"
    return f"{key} goes to {group}={', '.join(having)}; {group}={', '.join(lacking)} has no use for it"


def _told_apart(cells: Sequence[ComposedCell]) -> list[ComposedCell]:
    """The same cells; models or datasets whose paths end alike have longer names."""
    longer: dict[tuple[str, str], str] = {}
    for group in PLACED:
        paths: dict[str, list[str]] = {}
        for spec in (cell.spec for cell in cells if cell.spec):
            path = getattr(spec.config, group).path
            known = paths.setdefault(getattr(spec.choices, group), [])
            if path is not None and path not in known:
                known.append(path)
        for alike in (found for found in paths.values() if len(found) > 1):
            longer |= {(group, path): name for path, name in zip(alike, names_apart(alike), strict=True)}
    return [
        replace(cell, spec=_renamed(cell.spec, longer)) if cell.spec and longer else cell for cell in cells
    ]


def _renamed(spec: CellSpec, longer: Mapping[tuple[str, str], str]) -> CellSpec:
    """The cell by the names of its paths, its test sets too: one may be its own dataset."""

    def name(group: str, path: str | None, before: str) -> str:
        return longer.get((group, path), before) if path is not None else before

    config, choices = spec.config, spec.choices
    return replace(
        spec,
        choices=replace(
            choices,
            model=name("model", config.model.path, choices.model),
            dataset=name("dataset", config.dataset.path, choices.dataset),
        ),
        test_on={name("dataset", one.path, before): one for before, one in spec.test_on.items()},
    )


def _key(override: str) -> str:
    return override.partition("=")[0]
