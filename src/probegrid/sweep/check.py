"""Whether each cell can work, and whether it is done, before anything is submitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.cell.cell import Cell
from probegrid.cell.lookup import Lookup
from probegrid.cell.others import new_judges
from probegrid.cell.plan import plan_cell, workload_of
from probegrid.cell.prepare import prepare
from probegrid.errors import ConfigError, UnknownArchitecture, UserError
from probegrid.planning.replicas import AUTO
from probegrid.schema import DeviceMapConfig
from probegrid.sweep.grid import ComposedCell
from probegrid.sweep.options import LauncherOptions, SlurmOptions
from probegrid.tracking.integrity import is_done

if TYPE_CHECKING:
    from probegrid.planning.plan import Plan


@dataclass(frozen=True)
class CheckedCell:
    """A cell that was looked at: what it needs and what it is called, or why it cannot work."""

    composed: ComposedCell
    plan: Plan | None = None
    key: str | None = None
    is_done: bool = False
    error: UserError | None = None


class Checker:
    """Looks at cells one by one; what they share is looked up once."""

    def __init__(self, options: LauncherOptions, lookup: Lookup | None = None) -> None:
        self._options = options
        self._lookup = lookup or Lookup()
        self._plans: dict[str, Plan | UserError | None] = {}

    def check(self, composed: ComposedCell) -> CheckedCell:
        """Look at a cell; what is wrong with it is in the result."""
        spec = composed.spec
        if spec is None:
            return CheckedCell(composed, error=composed.error)
        try:
            elsewhere = isinstance(self._options, SlurmOptions)
            cell = prepare(spec, self._lookup, visible=() if elsewhere else None)
            key = cell.key
            done = not spec.config.force and has_all(Path(spec.config.results_dir) / key)
            plan = None if done else self._plan(cell)
        except UserError as error:
            return CheckedCell(composed, error=error)
        return CheckedCell(composed, plan, key, done)

    def _plan(self, cell: Cell) -> Plan | None:
        """The plan of a cell for where its job will run; None where none can be made and none has to be.

        Raises:
            UserError: it cannot work there, or without a plan nothing says what its job asks for.
        """
        if cell.model is None:
            return None
        described = (cell.model.checkpoint.fingerprint, cell.config.model, cell.config.quantization)
        key = f"{described} {cell.config.device_map} {workload_of(cell)}"
        if key not in self._plans:
            try:
                self._plans[key] = plan_cell(cell, device_map=self.device_map(cell.config.device_map))
            except UnknownArchitecture as error:
                self._plans[key] = self._without_plan(cell, error)
            except UserError as error:
                self._plans[key] = error
        found = self._plans[key]
        if isinstance(found, UserError):
            raise found
        return found

    def _without_plan(self, cell: Cell, error: UnknownArchitecture) -> UserError | None:
        options, given = self._options, vars(cell.config.model.resources)
        needed = [
            name
            for name, value in given.items()
            if value is None and isinstance(options, SlurmOptions) and not options.says(name)
        ]
        if not needed:
            return None
        return ConfigError(
            f"{error} Without a plan say what a job asks for: "
            f"{', '.join(f'model.resources.{name}' for name in needed)}."
        )

    def device_map(self, device_map: DeviceMapConfig) -> DeviceMapConfig:
        """What a job asks for: the GPUs a cluster profile describes, where the device map leaves them open.

        One copy of the model unless several are asked for: a sweep keeps GPUs busy by its other jobs, and copies take
        those that a job sees beyond its need.
        """
        if device_map.replicas == AUTO:
            device_map = replace(device_map, replicas="1")
        if not isinstance(self._options, SlurmOptions):
            return device_map
        gpus, memory_gb = self._options.gpus_per_node, self._options.gpu_memory_gb
        return replace(
            device_map,
            gpus=gpus if device_map.gpus is None else device_map.gpus,
            gpu_memory_gb=memory_gb if device_map.gpu_memory_gb is None else device_map.gpu_memory_gb,
        )


def has_all(folder: Path) -> bool:
    """Whether a cell is done, and scored by every judge there is: by new ones a job of its sweep scores it."""
    return is_done(folder) and not new_judges(folder)


def refusals(names: Sequence[str], checked: Iterable[CheckedCell]) -> list[str]:
    """A line for each cell that cannot work."""
    return [f"{name}: {cell.error}" for name, cell in zip(names, checked, strict=True) if cell.error]
