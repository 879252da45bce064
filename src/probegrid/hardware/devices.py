"""The devices a cell may use, as numbers: memory and three rates each.

Knows a table of GPUs and how far from their datasheets real code stays.

Units: GB is 10^9 bytes; rates are GB/s and TFLOP/s (10^12 operations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from probegrid.errors import PlanError
from probegrid.schema import DeviceMapConfig, PlacementStrategy

BYTES_PER_GB = 10**9


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, with the rates that plain code reaches on it."""

    name: str
    memory_gb: float
    """Memory in GB; what is free, where it was measured."""
    bandwidth_gb_per_s: float
    """Device memory read and written by a large copy."""
    tflops: float
    """A large dense 16-bit matrix product, accumulated in float32."""
    link_gb_per_s: float
    """A large copy from pinned CPU memory."""


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


def _datasheet(name: str, memory_gb: float, bandwidth: float, tflops: float, link: float) -> Gpu:
    """A GPU from its datasheet: bandwidth, dense 16-bit rate and one-way host link, each as far as it is reached.

    The three shares are an H200's: a device copy at 4.06 of 4.8 TB/s, a matrix product at 771 of 989 TFLOP/s,
    a pinned copy at 55 of 63 GB/s.
    """
    return Gpu(name, memory_gb, 0.85 * bandwidth, 0.78 * tflops, 0.87 * link)


_PCIE3, _PCIE4, _PCIE5 = 15.75, 31.5, 63.0
"""GB/s one way over 16 lanes."""

GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _datasheet("GTX 1080 Ti", 11, 484, 11.3, _PCIE3),  # no 16-bit units: the float32 rate
        _datasheet("RTX 2080 Ti", 11, 616, 53.8, _PCIE3),
        _datasheet("RTX 3090", 24, 936, 71, _PCIE4),
        _datasheet("RTX 4090", 24, 1008, 165.2, _PCIE4),
        _datasheet("RTX A6000", 48, 768, 154.8, _PCIE4),
        _datasheet("L40S", 48, 864, 362, _PCIE4),
        _datasheet("T4", 16, 300, 65, _PCIE3),
        _datasheet("V100 16GB", 16, 900, 125, _PCIE3),
        _datasheet("V100 32GB", 32, 900, 125, _PCIE3),
        _datasheet("A100 40GB", 40, 1555, 312, _PCIE4),
        _datasheet("A100 80GB", 80, 2039, 312, _PCIE4),
        _datasheet("H100 80GB", 80, 3350, 989, _PCIE5),
        _datasheet("H200", 141, 4800, 989, _PCIE5),
    )
}


def assumed_gpu(memory_gb: float) -> Gpu:
    """A GPU whose memory alone is known: the slowest of the smallest in the table that have as much."""
    enough = [gpu for gpu in GPUS.values() if gpu.memory_gb >= memory_gb]
    if not enough:
        return replace(max(GPUS.values(), key=lambda gpu: gpu.memory_gb), memory_gb=memory_gb)
    smallest = min(gpu.memory_gb for gpu in enough)
    slowest = min((gpu for gpu in enough if gpu.memory_gb == smallest), key=lambda gpu: gpu.tflops)
    return replace(slowest, memory_gb=memory_gb)


def hardware_for(
    device_map: DeviceMapConfig,
    *,
    visible: Sequence[Gpu] = (),
    cpu: Cpu | None = None,
) -> Hardware:
    """The devices of a ``device_map``.

    Args:
        device_map: what the user allows. ``gpus`` and ``gpu_memory_gb`` together describe GPUs that need not
            be here.
        visible: the GPUs of this machine with what they have free and, where measured, what they reach.
        cpu: this machine's CPU; its memory counts only where the GPUs are this machine's too.

    Raises:
        PlanError: GPUs are asked for that are neither visible nor described.
    """
    cpu = cpu or Cpu()
    count = len(visible) if device_map.gpus is None else device_map.gpus
    if device_map.strategy is PlacementStrategy.cpu:
        count = 0
    elif device_map.strategy is PlacementStrategy.single:
        count = min(count, 1)
    described = count > len(visible)
    if described and device_map.gpu_memory_gb is None:
        raise PlanError(
            f"device_map.gpus={count} asks for more GPUs than the {len(visible)} visible; "
            "to plan for another machine say what they hold: `device_map.gpu_memory_gb=24`."
        )
    if described and device_map.gpu_memory_gb is not None:
        gpus = (assumed_gpu(device_map.gpu_memory_gb),) * count
        memory_gb = None
    else:
        limit_gb = float("inf") if device_map.gpu_memory_gb is None else device_map.gpu_memory_gb
        gpus = tuple(replace(gpu, memory_gb=min(gpu.memory_gb, limit_gb)) for gpu in visible[:count])
        memory_gb = cpu.memory_gb
    if device_map.cpu_memory_gb is not None:
        memory_gb = device_map.cpu_memory_gb
    return Hardware(gpus=gpus, cpu=replace(cpu, memory_gb=memory_gb))
