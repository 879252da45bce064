"""Whether each cell can work, and whether it is done, before anything is submitted.

What cells share is looked up once: a checkpoint, a dataset, a plan. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from probegrid import data
from probegrid.cell.plan import plan_cell
from probegrid.cell.prepare import Cell, probe_classifier, transfer_sets
from probegrid.errors import ConfigError, UnknownArchitecture, UserError
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.schema import CellSpec, Config, DeviceMapConfig
from probegrid.sweep.grid import ComposedCell
from probegrid.sweep.options import LauncherOptions, SlurmOptions
from probegrid.tracking import record

if TYPE_CHECKING:
    from probegrid.data.example import QuestionSet, StatementSet
    from probegrid.planning.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class CheckedCell:
    """A cell that was looked at: what it needs and what it is called, or why it cannot work."""

    composed: ComposedCell
    plan: Plan | None = None
    key: str | None = None
    is_done: bool = False
    error: UserError | None = None


class Once:
    """Remembers what was found for a description, mistakes included."""

    def __init__(self) -> None:
        self._found: dict[str, object] = {}

    def __call__(self, description: str, find: Callable[[], T]) -> T:
        """What ``find`` returns, or raises, the first time for this description."""
        if description not in self._found:
            try:
                self._found[description] = find()
            except UserError as error:
                self._found[description] = error
        found = self._found[description]
        if isinstance(found, UserError):
            raise found
        return found  # type: ignore[return-value]  # the description names what is looked for


class Checker:
    """Looks at cells one by one."""

    def __init__(self, options: LauncherOptions) -> None:
        self._options = options
        self._once = Once()

    def check(self, composed: ComposedCell) -> CheckedCell:
        """Look at a cell; what is wrong with it is in the result."""
        if composed.spec is None:
            return CheckedCell(composed, error=composed.error)
        config, spec = composed.spec.config, composed.spec
        try:
            checkpoint = self._once(f"checkpoint {config.model}", lambda: find_checkpoint(config.model))
            plan = self._plan_if_known(spec, checkpoint)
            examples = self._examples(config)
            transfer = self._once(f"transfer {config.probe}", lambda: transfer_sets(config.probe))
            classifier = self._once(f"classifier {config.probe}", lambda: probe_classifier(config.probe))
            key = Cell(spec, checkpoint, plan, examples, transfer, classifier).key
        except UserError as error:
            return CheckedCell(composed, error=error)
        return CheckedCell(composed, plan, key, record.is_done(Path(config.results_dir), key))

    def plan(self, spec: CellSpec, checkpoint: Checkpoint | None = None) -> Plan:
        """Plan a cell for where its job will run.

        Raises:
            UserError: it cannot work there.
        """
        there = replace(spec.config, device_map=self._device_map(spec.config.device_map))
        moved = replace(spec, config=there)
        found = checkpoint and checkpoint.fingerprint
        return self._once(
            f"plan {there} {spec.choices.dataset} {found}", lambda: plan_cell(moved, checkpoint)
        )

    def _plan_if_known(self, spec: CellSpec, checkpoint: Checkpoint) -> Plan | None:
        """The plan; None where nothing is known of the architecture and nothing has to be."""
        try:
            return self.plan(spec, checkpoint)
        except UnknownArchitecture as error:
            needed = [name for name, value in vars(spec.config.model.resources).items() if value is None]
            if needed and isinstance(self._options, SlurmOptions):
                raise ConfigError(
                    f"{error} Without a plan say what a job asks for: "
                    f"{', '.join(f'model.resources.{name}' for name in needed)}."
                ) from error
            return None

    def _examples(self, config: Config) -> QuestionSet | StatementSet:
        return self._once(
            f"{type(config.dataset).__module__} {config.dataset}", lambda: data.load(config.dataset)
        )

    def _device_map(self, device_map: DeviceMapConfig) -> DeviceMapConfig:
        """The GPUs a cluster profile describes, where the device map leaves them open."""
        if not isinstance(self._options, SlurmOptions):
            return device_map
        gpus, memory_gb = self._options.gpus_per_node, self._options.gpu_memory_gb
        return replace(
            device_map,
            gpus=gpus if device_map.gpus is None else device_map.gpus,
            gpu_memory_gb=memory_gb if device_map.gpu_memory_gb is None else device_map.gpu_memory_gb,
        )


def refusals(names: Sequence[str], checked: Iterable[CheckedCell]) -> list[str]:
    """A line for each cell that cannot work."""
    return [f"{name}: {cell.error}" for name, cell in zip(names, checked, strict=True) if cell.error]
