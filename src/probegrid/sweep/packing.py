"""From cells to jobs: which cells share a model in memory, and what their job asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from probegrid.models.plan import Plan
from probegrid.schema import Config, Resources
from probegrid.sweep.check import CheckedCell
from probegrid.sweep.scheduler import JobRequest

_STARTUP_MIN = 15
_TIME_FACTOR = 2


def pack(
    checked: Sequence[CheckedCell], cells: Sequence[int], cells_per_job: int | None
) -> list[list[JobRequest]]:
    """Divide cells into packs, and each pack into jobs of at most ``cells_per_job``.

    A pack's cells have the same model, quantization and device map, by value and not only by name. All jobs of
    a pack ask for the same, so that they can be one array.

    Args:
        checked: every cell of the sweep.
        cells: numbers of those to run.
        cells_per_job: None for one job a pack.
    """
    packs: dict[str, list[int]] = {}
    for cell in cells:
        packs.setdefault(_held_in_memory(_config(checked[cell])), []).append(cell)
    return [_jobs(checked, numbers, cells_per_job or len(numbers)) for numbers in packs.values()]


def _held_in_memory(config: Config) -> str:
    return f"{config.model} {config.quantization} {config.device_map}"


def _jobs(checked: Sequence[CheckedCell], numbers: Sequence[int], size: int) -> list[JobRequest]:
    chunks = [tuple(numbers[start : start + size]) for start in range(0, len(numbers), size)]
    asked = [
        _resources(_config(checked[numbers[0]]), [plan for cell in chunk if (plan := checked[cell].plan)])
        for chunk in chunks
    ]
    largest = Resources(**{name: max(getattr(each, name) for each in asked) for name in vars(asked[0])})
    choices = checked[numbers[0]].composed.choices
    assert choices is not None
    name = "-".join((choices.model, choices.quantization, choices.device_map))
    return [JobRequest(name, chunk, largest) for chunk in chunks]


def _resources(config: Config, plans: Sequence[Plan]) -> Resources:
    """What the cells need one after another: the most of everything, and the time of all, doubled."""
    given, planned = config.model.resources, [plan.resources() for plan in plans]
    hours = sum(plan.hours for plan in plans)
    values = {name: max(getattr(each, name) for each in planned) for name in vars(given)}
    values["timeout_min"] = _STARTUP_MIN + math.ceil(_TIME_FACTOR * 60 * hours)
    return Resources(**values | dict(_given(given)))


def _given(resources: Resources) -> Iterator[tuple[str, int | float]]:
    for name, value in vars(resources).items():
        if value is not None:
            yield name, value


def _config(cell: CheckedCell) -> Config:
    assert cell.composed.config is not None
    return cell.composed.config
