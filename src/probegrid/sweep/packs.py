"""From cells to jobs: which cells share a model in memory, and what their job asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from probegrid.planning.plan import Plan
from probegrid.planning.replicas import AUTO
from probegrid.schema import CellSpec, Config, PlacementStrategy, Resources
from probegrid.sweep.check import CheckedCell
from probegrid.sweep.scheduler import JobRequest

_STARTUP_MIN = 15
_TIME_FACTOR = 2


def pack(
    checked: Sequence[CheckedCell], cells: Sequence[int], cells_per_job: int | None, jobs_per_cell: int = 1
) -> list[list[JobRequest]]:
    """Divide cells into packs, and each pack into jobs of at most ``cells_per_job``, each of them so many times.

    A pack's cells have the same model, quantization and device map, by value and not only by name; those that need
    most of the model come first. All jobs of a pack ask for the same, so that they can be one array.

    Args:
        checked: every cell of the sweep.
        cells: numbers of those to run.
        cells_per_job: None for one job a pack.
        jobs_per_cell: jobs that share the same cells.
    """
    packs: dict[str, list[int]] = {}
    for cell in sorted(cells, key=lambda cell: -_depth(checked[cell].plan)):
        packs.setdefault(held_in_memory(_spec(checked[cell]).config), []).append(cell)
    return [
        [job for job in _jobs(checked, numbers, cells_per_job or len(numbers)) for _ in range(jobs_per_cell)]
        for numbers in packs.values()
    ]


def _depth(plan: Plan | None) -> int:
    """How much of its model a cell needs: the deepest comes first, for what it loads serves the others too."""
    return 0 if plan is None else plan.blocks + (plan.placement.head is not None)


def held_in_memory(config: Config) -> str:
    """What cells of one pack share: they take one load."""
    return f"{config.model} {config.quantization} {config.device_map}"


def _jobs(checked: Sequence[CheckedCell], numbers: Sequence[int], size: int) -> list[JobRequest]:
    chunks = [tuple(numbers[start : start + size]) for start in range(0, len(numbers), size)]
    spec = _spec(checked[numbers[0]])
    config, choices = spec.config, spec.choices
    asked = [_resources(config, [plan for cell in chunk if (plan := checked[cell].plan)]) for chunk in chunks]
    name = "-".join((choices.model, choices.quantization, choices.device_map))
    cards, takes_more = _cards(config, [checked[cell].plan for cell in numbers])
    return [JobRequest(name, chunk, _most(asked), cards, takes_more) for chunk in chunks]


def _cards(config: Config, plans: Sequence[Plan | None]) -> tuple[int | None, bool]:
    """GPUs that a job of this pack must see, and whether more would be used too."""
    device_map, given = config.device_map, config.model.resources.gpus
    if given is not None:
        return given, False
    if device_map.strategy is PlacementStrategy.cpu:
        return 0, False
    if device_map.gpus is not None:
        return device_map.gpus, False
    known = [plan for plan in plans if plan is not None]
    if not known:
        return None, False
    needed = max(plan.gpus for plan in known) * _copies(config)
    spreads = device_map.strategy is PlacementStrategy.auto and device_map.replicas == AUTO
    return needed, spreads and needed > 0


def _resources(config: Config, plans: Sequence[Plan]) -> Resources:
    """What the cells need one after another: the most of everything, and the time of all, doubled."""
    given = config.model.resources
    if not plans:
        return given
    minutes = _STARTUP_MIN + math.ceil(_TIME_FACTOR * 60 * sum(plan.hours for plan in plans))
    planned = replace(_of_all_copies(config, [plan.resources() for plan in plans]), timeout_min=minutes)
    return replace(planned, **{name: value for name, value in vars(given).items() if value is not None})


def _copies(config: Config) -> int:
    """Copies of the model that were asked for by number; ``auto`` takes what a job is given beyond one copy's need."""
    return 1 if config.device_map.replicas == AUTO else int(config.device_map.replicas)


def _of_all_copies(config: Config, resources: Sequence[Resources]) -> Resources:
    """The most of everything, for each copy of the model."""
    each, copies = _most(resources), _copies(config)
    counted = {name: getattr(each, name) for name in ("gpus", "cpus", "mem_gb")}
    return replace(each, **{name: value and value * copies for name, value in counted.items()})


def _most(resources: Sequence[Resources]) -> Resources:
    """The most of everything; what one leaves open all do."""
    values = {name: [getattr(each, name) for each in resources] for name in vars(resources[0])}
    return Resources(**{name: None if None in found else max(found) for name, found in values.items()})


def _spec(cell: CheckedCell) -> CellSpec:
    assert cell.composed.spec is not None
    return cell.composed.spec
