"""How many copies of a model read side by side, each on devices of its own that the placement leaves unused.

Knows a placement, what is free and how long the reading takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from probegrid.errors import PlanError
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.planning.candidates import Option
from probegrid.planning.requirements import Facts

AUTO = "auto"
MOST = 999
WORTH_S = 15.0
"""Seconds of reading that each replica must have: one that starts is not at work before it has imported torch and
found its prompts, about ten seconds after the first."""


def replicas_of(asked: str, facts: Facts, option: Option) -> tuple[int, str]:
    """Copies of the model, and what to say of their number; nothing where no more were possible.

    Args:
        asked: ``auto``, or a number.
        facts: the devices and what each may hold.
        option: where one copy lies, and how long it would read alone.

    Raises:
        PlanError: more are asked for than have room.
    """
    room = room_of(facts, option)
    if asked != AUTO:
        if int(asked) > room:
            raise PlanError(_refusal(int(asked), room, facts, option))
        return int(asked), ""
    used = len(option.placement.gpus)
    if not used or room == 1:  # on a CPU one copy computes on every core already
        return 1, ""
    seconds = option.duration.total_s
    chosen = min(room, max(1, int(seconds // WORTH_S)))
    if chosen == room:
        return chosen, ""
    said = (
        f"{room} copies of the model have room and {chosen} {'reads' if chosen == 1 else 'read'}: the reading takes "
        f"{seconds:.2g} s alone, and each more has to start (device_map.replicas={room} uses all)"
    )
    return chosen, said


def with_room(asked: str, facts: Facts, found: Sequence[Option]) -> Sequence[Option]:
    """The options that leave room for as many copies as are asked for; all of them where none does."""
    copies = 1 if asked == AUTO else int(asked)
    return [option for option in found if room_of(facts, option) >= copies] or found


def room_of(facts: Facts, option: Option) -> int:
    """Copies that have devices and memory of their own, the first among them."""
    has_limit = option.cpu_bytes > 0 and not math.isinf(facts.cpu_budget)
    most = int(facts.cpu_budget // option.cpu_bytes) if has_limit else MOST
    used = option.placement.gpus
    if not used:
        return max(1, most)
    needed = [option.loads[gpu].total if gpu in option.loads else 0 for gpu in used]
    unused = [gpu for gpu in range(len(facts.hardware.gpus)) if gpu not in used]
    groups = [unused[start : start + len(used)] for start in range(0, len(unused), len(used))]
    holding = 0
    for group in groups:  # the copies take GPUs in order: one that is full ends the row
        budgets = [facts.gpu_budgets[gpu] for gpu in group]
        if len(group) < len(used) or any(budget < load for budget, load in zip(budgets, needed, strict=True)):
            break
        holding += 1
    return max(1, min(most, 1 + holding))


def _refusal(asked: int, room: int, facts: Facts, option: Option) -> str:
    used, there = len(option.placement.gpus), len(facts.hardware.gpus)
    said = f"device_map.replicas={asked} asks for {asked} copies of the model and {room} "
    said += "has room: " if room == 1 else "have room: "
    if used:
        held = max(load.total for device, load in option.loads.items() if device != "cpu") / BYTES_PER_GB
        said += f"each takes {used} of {there} GPU{'s' * (there != 1)} with {held:.1f} GB free"
        said += f" and {option.cpu_bytes / BYTES_PER_GB:.1f} GB of CPU memory" if option.cpu_bytes else ""
    else:
        said += f"each takes {option.cpu_bytes / BYTES_PER_GB:.1f} GB of CPU memory"
    return f"{said}; device_map.replicas={AUTO} takes as many as there can be."
