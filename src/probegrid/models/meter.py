"""What loading and running a model took: seconds and peak bytes.

Knows the counters of the operating system and of torch; must not know what the model was asked.
"""

from __future__ import annotations

import resource
from dataclasses import replace

import torch

from probegrid.models.hardware import BYTES_PER_GB
from probegrid.models.load import LoadedModel, ModelRequest
from probegrid.models.memory import free_bytes
from probegrid.models.plan import Limits
from probegrid.models.pool import ModelPool


class Meter:
    """Opens the model of a cell when it is needed and keeps account of what it took."""

    def __init__(self, pool: ModelPool, request: ModelRequest, limits: Limits | None) -> None:
        self._pool = pool
        self._request = request
        self._limits = limits
        self._load_s = 0.0
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)

    def open_model(self, deepest_layer: int | None = None) -> LoadedModel:
        """The model, loaded now unless the pool holds it.

        Args:
            deepest_layer: blocks to load, without the head, for activations; None: the whole model.
        """
        request = self._request if deepest_layer is None else self._request.without_head(deepest_layer)
        before = self._pool.loaded
        loaded = self._pool.get(request, deepest_layer)
        if loaded is not before:
            self._load_s += loaded.load_s
        return replace(loaded, limits=self._limits)

    def make_room(self, device: torch.device, needed: int) -> None:
        """Let the model go if there are not so many bytes free beside it; it is loaded again when it is needed."""
        if free_bytes(device) < needed:
            self._pool.release()

    def metrics(self) -> dict[str, float]:
        """``load_s``, ``peak_ram_gb`` of this process, ``peak_gpu_gb_<i>``; in 10^9 bytes.

        ``load_s`` is 0 where no model was needed, or an earlier cell of the pack had loaded it.
        """
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        gpus = {
            f"peak_gpu_gb_{device}": torch.cuda.max_memory_allocated(device) / BYTES_PER_GB
            for device in range(torch.cuda.device_count())
        }
        return {
            "load_s": self._load_s,
            "peak_ram_gb": peak_kib * 1024 / BYTES_PER_GB,
            **gpus,
        }
