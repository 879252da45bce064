"""The devices a cell may use, as numbers: memory and three rates each.

Knows device maps: which of this machine's GPUs, or what GPUs elsewhere, they mean.

Units: GB is 10^9 bytes; rates are GB/s and TFLOP/s (10^12 operations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from probegrid.errors import PlanError
from probegrid.hardware.cards import GPUS, Gpu, assumed_gpu, family, find_card, recognize
from probegrid.schema import DeviceMapConfig, PlacementStrategy

__all__ = ["BYTES_PER_GB", "GPUS", "Cpu", "Gpu", "Hardware", "assumed_gpu", "described_gpu", "hardware_for"]

BYTES_PER_GB = 10**9


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU and its memory. The default rates are those of a recent eight-core desktop."""

    memory_gb: float | None = None
    """Memory in GB that weights may take; None: no limit is known, and the plan says what it needs."""
    bandwidth_gb_per_s: float = 40.0
    tflops: float = 0.5


@dataclass(frozen=True, slots=True)
class Hardware:
    """Everything a cell may use: its GPUs in order, the CPU, the disk and the network."""

    gpus: tuple[Gpu, ...] = ()
    cpu: Cpu = Cpu()
    disk_gb_per_s: float = 1.0
    """Reading a checkpoint."""
    pin_gb_per_s: float = 1.1
    """Copying weights into pinned memory (measured: 20 GB in 18 s)."""


def hardware_for(
    device_map: DeviceMapConfig,
    *,
    visible: Sequence[Gpu] = (),
    cpu: Cpu | None = None,
) -> Hardware:
    """The devices of a ``device_map``.

    Args:
        device_map: what the user allows. ``gpus`` with ``gpu`` or ``gpu_memory_gb`` describes GPUs that need not be
            here; where enough of the named card are, they count as they are.
        visible: the GPUs of this machine with what they have free and, where measured, what they reach.
        cpu: this machine's CPU; its memory counts only where the GPUs are this machine's too.

    Raises:
        PlanError: GPUs are asked for that are neither visible nor described, or by a name that is not known.
    """
    cpu = cpu or Cpu()
    card = described_gpu(device_map)
    if device_map.gpu is not None:
        visible = [gpu for gpu in visible if _is(gpu, card)]
    count = (
        device_map.gpus if device_map.gpus is not None else len(visible) or int(device_map.gpu is not None)
    )
    if device_map.strategy is PlacementStrategy.cpu:
        count = 0
    elif device_map.strategy is PlacementStrategy.single:
        count = min(count, 1)
    if count > len(visible):
        if card is None:
            raise PlanError(
                f"device_map.gpus={count} asks for more GPUs than the {len(visible)} visible; to plan for another "
                "machine say what they are: `device_map.gpu=h100`, or what they hold: `device_map.gpu_memory_gb=24`."
            )
        gpus = (card,) * count
        memory_gb = None
    else:
        limit_gb = float("inf") if device_map.gpu_memory_gb is None else device_map.gpu_memory_gb
        gpus = tuple(replace(gpu, memory_gb=min(gpu.memory_gb, limit_gb)) for gpu in visible[:count])
        memory_gb = cpu.memory_gb
    if device_map.cpu_memory_gb is not None:
        memory_gb = device_map.cpu_memory_gb
    return Hardware(gpus=gpus, cpu=replace(cpu, memory_gb=memory_gb))


def described_gpu(device_map: DeviceMapConfig) -> Gpu | None:
    """The card that a device map describes, by its name and memory; None where it says neither.

    Raises:
        PlanError: there is none of this name, or torch has no code for it.
    """
    if device_map.gpu is None:
        return None if device_map.gpu_memory_gb is None else assumed_gpu(device_map.gpu_memory_gb)
    card = find_card(device_map.gpu, device_map.gpu_memory_gb)
    return card if device_map.gpu_memory_gb is None else replace(card, memory_gb=device_map.gpu_memory_gb)


def _is(gpu: Gpu, card: Gpu | None) -> bool:
    """Whether a GPU of this machine is a card of the table, or of its kind with another memory."""
    known = recognize(gpu.name)
    return known is not None and card is not None and family(known) == family(card)
