"""The GPUs and the memory of this machine, found without importing torch.

Knows ``nvidia-smi`` and the operating system; must not know models or plans.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace

import psutil

from probegrid.models.hardware import BYTES_PER_GB, GPUS, Cpu, Gpu, assumed_gpu

_BYTES_PER_MIB = 2**20
_TIMEOUT_S = 20


def this_cpu() -> Cpu:
    """The CPU, with the memory that is available now."""
    return Cpu(memory_gb=psutil.virtual_memory().available / BYTES_PER_GB)


def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible, in its order, with the memory that is free now."""
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    gpus: dict[str, Gpu] = {}
    for line in listed.strip().splitlines():
        index, uuid, name, free_mib = (part.strip() for part in line.split(","))
        gpu = _known(name, float(free_mib) * _BYTES_PER_MIB / BYTES_PER_GB)
        gpus |= {index: gpu, uuid: gpu}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [key for key in gpus if key.isdecimal()] if visible is None else visible.split(",")
    return tuple(gpus[name.strip()] for name in names if name.strip() in gpus)


def _known(driver_name: str, free_gb: float) -> Gpu:
    """The table's entry for a name as the driver gives it (``NVIDIA A100-SXM4-80GB``), or a careful assumption."""
    words = set(driver_name.replace("-", " ").split())
    named = [gpu for name, gpu in GPUS.items() if set(name.split()) <= words or name in driver_name]
    known = max(named, key=lambda gpu: len(gpu.name), default=assumed_gpu(free_gb))
    return replace(known, name=driver_name, memory_gb=free_gb)
