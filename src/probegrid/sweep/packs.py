"""From cells to jobs: which cells share a model in memory, and what their job asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from probegrid.planning.plan import Plan
from probegrid.schema import CellSpec, Config, Resources
from probegrid.sweep.check import CheckedCell
from probegrid.sweep.scheduler import JobRequest

_STARTUP_MIN = 15
_TIME_FACTOR = 2


def pack(
    checked: Sequence[CheckedCell], cells: Sequence[int], cells_per_job: int | None
) -> list[list[JobRequest]]:
    """Divide cells into packs, and each pack into jobs of at most ``cells_per_job``.

    A pack's cells have the same model, quantization and device map, by value and not only by name; those that need
    most of the model come first. All jobs of a pack ask for the same, so that they can be one array.

    Args:
        checked: every cell of the sweep.
        cells: numbers of those to run.
        cells_per_job: None for one job a pack.
    """
    packs: dict[str, list[int]] = {}
    for cell in sorted(cells, key=lambda cell: -_depth(checked[cell].plan)):
        packs.setdefault(_held_in_memory(_spec(checked[cell]).config), []).append(cell)
    return [_jobs(checked, numbers, cells_per_job or len(numbers)) for numbers in packs.values()]


def _depth(plan: Plan | None) -> int:
    """How much of its model a cell needs: the deepest comes first, for what it loads serves the others too."""
    return 0 if plan is None else plan.blocks + (plan.placement.head is not None)


def _held_in_memory(config: Config) -> str:
    return f"{config.model} {config.quantization} {config.device_map}"


def _jobs(checked: Sequence[CheckedCell], numbers: Sequence[int], size: int) -> list[JobRequest]:
    chunks = [tuple(numbers[start : start + size]) for start in range(0, len(numbers), size)]
    spec = _spec(checked[numbers[0]])
    config, choices = spec.config, spec.choices
    asked = [
        _resources(config.model.resources, [plan for cell in chunk if (plan := checked[cell].plan)])
        for chunk in chunks
    ]
    name = "-".join((choices.model, choices.quantization, choices.device_map))
    return [JobRequest(name, chunk, _most(asked)) for chunk in chunks]


def _resources(given: Resources, plans: Sequence[Plan]) -> Resources:
    """What the cells need one after another: the most of everything, and the time of all, doubled."""
    if not plans:
        return given
    minutes = _STARTUP_MIN + math.ceil(_TIME_FACTOR * 60 * sum(plan.hours for plan in plans))
    planned = replace(_most([plan.resources() for plan in plans]), timeout_min=minutes)
    return replace(planned, **{name: value for name, value in vars(given).items() if value is not None})


def _most(resources: Sequence[Resources]) -> Resources:
    """The most of everything; what one leaves open all do."""
    values = {name: [getattr(each, name) for each in resources] for name in vars(resources[0])}
    return Resources(**{name: None if None in found else max(found) for name, found in values.items()})


def _spec(cell: CheckedCell) -> CellSpec:
    assert cell.composed.spec is not None
    return cell.composed.spec
