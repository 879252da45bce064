"""What a machine does while a cell runs: memory and utilisation of each GPU, of the CPU, once a second.

Knows the driver's and the operating system's counters. The series carry the names that MLflow's own system metrics
have, so that its UI shows them in their place:

    system/cpu_utilization_percentage           all cores together, 0 to 100
    system/system_memory_usage_megabytes        CPU memory in use by all programs, 10^6 bytes
    system/gpu_<i>_memory_usage_megabytes       memory of a visible GPU in use by all programs, 10^6 bytes
    system/gpu_<i>_utilization_percentage       share of the last second in which a kernel ran on it, 0 to 100
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psutil

from probegrid.hardware.devices import BYTES_PER_GB

_BYTES_PER_MB = 10**6
MOST_SAMPLES = 512
"""A longer run keeps every second sample, then every fourth, and so on."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One card, all programs on it together."""

    index: int
    used_bytes: int
    total_bytes: int
    busy_percent: int

    def __str__(self) -> str:
        used, total = self.used_bytes / BYTES_PER_GB, self.total_bytes / BYTES_PER_GB
        return f"GPU {self.index} {used:.1f}/{total:.0f} GB {self.busy_percent}%"


class Telemetry:
    """Samples in a thread of its own; use as a context manager."""

    def __init__(self, show: Callable[[str], None], every_s: float = 1.0) -> None:
        """Sample nothing yet.

        Args:
            show: called with a short text on the GPUs after each sample; not called where there are none.
            every_s: seconds between two samples.
        """
        self._show = show
        self._every_s = every_s
        self._samples: list[tuple[int, dict[str, float]]] = []
        self._stride = 1
        self._gpus = _Gpus()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def series(self) -> dict[str, list[tuple[int, float]]]:
        """By name, (seconds since the start, value) pairs."""
        names = dict.fromkeys(name for _, sample in self._samples for name in sample)
        return {
            name: [(second, sample[name]) for second, sample in self._samples if name in sample]
            for name in names
        }

    def _run(self) -> None:
        started, tick = time.monotonic(), 0
        psutil.cpu_percent()  # the first answer is of nothing
        while not self._ended.wait(self._every_s):
            uses = self._gpus.use()
            if uses:
                self._show(", ".join(map(str, uses)))
            if tick % self._stride == 0:
                self._samples.append((round(time.monotonic() - started), _sample(uses)))
            tick += 1
            if len(self._samples) > MOST_SAMPLES:
                self._samples = self._samples[::2]
                self._stride *= 2


def _sample(uses: list[GpuUse]) -> dict[str, float]:
    values = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": psutil.virtual_memory().used / _BYTES_PER_MB,
    }
    for use in uses:
        values[f"system/gpu_{use.index}_memory_usage_megabytes"] = use.used_bytes / _BYTES_PER_MB
        values[f"system/gpu_{use.index}_utilization_percentage"] = float(use.busy_percent)
    return values


class _Gpus:
    """The visible GPUs in torch's order, as the driver's library (NVML) knows them; none without CUDA."""

    def __init__(self) -> None:
        self._handles = self._find()

    def use(self) -> list[GpuUse]:
        """Every GPU, now."""
        if not self._handles:
            return []
        import pynvml

        uses = []
        for index, handle in self._handles.items():
            try:
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            except pynvml.NVMLError:  # a slice of a card (MIG) does not say
                continue
            uses.append(GpuUse(index, int(memory.used), int(memory.total), int(busy)))
        return uses

    @staticmethod
    def _find() -> Mapping[int, Any]:
        import torch

        if not torch.cuda.is_available():
            return {}
        import pynvml

        try:
            pynvml.nvmlInit()
            uuids = [torch.cuda.get_device_properties(i).uuid for i in range(torch.cuda.device_count())]
            return {
                index: pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}") for index, uuid in enumerate(uuids)
            }
        except pynvml.NVMLError:
            return {}
