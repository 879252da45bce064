"""From a sweeper's overrides to typed cells, each composed once.

Hydra's own sweeper composes every cell to see that it can, throws the configs away, and stops at the first
mistake. ``Composer`` stands in for the config loader: what was composed is kept, what could not be is listed.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from hydra._internal.config_repository import CachingConfigRepository
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from probegrid.compose import to_spec, user_errors
from probegrid.errors import UserError
from probegrid.schema import CellSpec
from probegrid.tracking.naming import NAMED_GROUPS, key_of_override


@dataclass(frozen=True)
class ComposedCell:
    """A point of the grid: what its cell is, or why it has none."""

    overrides: tuple[str, ...]
    spec: CellSpec | None = None
    error: UserError | None = None


class Composer:
    """A config loader that remembers the cells it composed; everything else is the loader's own."""

    def __init__(self, loader: Any) -> None:
        loader.repository = _ReadOnce(loader.repository)
        self._loader = loader
        self._cells: dict[tuple[str, ...], ComposedCell] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        """Compose a cell for whoever needs Hydra's config; a mistake in it is kept for `cell`."""
        overrides = tuple(sweep_overrides)
        composed = OmegaConf.create()
        try:
            with user_errors():
                composed = self._loader.load_sweep_config(master_config, list(overrides))
            cell = ComposedCell(overrides, to_spec(composed, composed["hydra"]))
        except UserError as error:
            cell = ComposedCell(overrides, error=error)
        self._cells[overrides] = cell
        return composed

    def cell(self, master_config: DictConfig, overrides: Sequence[str]) -> ComposedCell:
        """The cell of these overrides, composed now if the sweeper did not."""
        if tuple(overrides) not in self._cells:
            self.load_sweep_config(master_config, overrides)
        return self._cells[tuple(overrides)]


class _ReadOnce(CachingConfigRepository):
    """Reads each YAML file once for all cells, not once a cell; composing takes half the time.

    Hydra's own caching repository lives for one cell, which writes into what it is given: here it gets a copy.
    """

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def load_config(self, config_path: str) -> ConfigResult | None:
        """A copy of what the file says."""
        found = super().load_config(config_path)
        return found and replace(found, config=copy.deepcopy(found.config))


def told_apart(cells: Sequence[ComposedCell]) -> list[ComposedCell]:
    """The same cells, each named by its choices and by the overrides that not all of them share."""
    common = set.intersection(*(set(cell.overrides) for cell in cells)) if cells else set()
    return [cell if cell.spec is None else _named(cell, cell.spec, common) for cell in cells]


def cell_names(cells: Sequence[ComposedCell]) -> list[str]:
    """A name for each cell of a grid, different for each; what could not be composed goes by its overrides."""
    return [" ".join(cell.overrides) if cell.spec is None else cell.spec.name for cell in told_apart(cells)]


def _named(cell: ComposedCell, spec: CellSpec, common: Collection[str]) -> ComposedCell:
    rest = tuple(
        override
        for override in cell.overrides
        if override not in common and key_of_override(override) not in NAMED_GROUPS
    )
    return replace(cell, spec=replace(spec, overrides=rest))
