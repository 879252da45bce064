"""How full and how busy each GPU is, for a line beside the progress bar.

Knows torch's view of the cards; must not know what they compute.
"""

from __future__ import annotations

from dataclasses import dataclass

from probegrid.models.hardware import BYTES_PER_GB


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One card, all programs on it together."""

    index: int
    used_bytes: int
    total_bytes: int
    busy: float | None
    """Share of the last second in which a kernel ran; None without ``nvidia-ml-py``."""

    def __str__(self) -> str:
        memory = (
            f"GPU {self.index}: {self.used_bytes / BYTES_PER_GB:.1f}/{self.total_bytes / BYTES_PER_GB:.0f} GB"
        )
        return memory if self.busy is None else f"{memory} {self.busy:.0%}"


def gpu_use() -> list[GpuUse]:
    """Every visible card, now; none without CUDA."""
    import torch

    uses = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        uses.append(GpuUse(index, total - free, total, _busy(index)))
    return uses


def _busy(index: int) -> float | None:
    import torch

    try:
        return torch.cuda.utilization(index) / 100
    except (ImportError, RuntimeError):  # no nvidia-ml-py, or a driver that does not say
        return None
