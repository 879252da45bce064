"""The GPUs and the memory of this machine, found without importing torch.

Knows ``nvidia-smi``, the operating system and the file of measured rates.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from probegrid.hardware.cards import Capability, Gpu, assumed_gpu, recognize
from probegrid.hardware.devices import BYTES_PER_GB, Cpu

_BYTES_PER_MIB = 2**20
_TIMEOUT_S = 20
# CUDA would number the fastest first, nvidia-smi numbers by slot: a plan's GPU 0 has to be torch's.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


@dataclass(frozen=True, slots=True)
class Rates:
    """What a GPU was measured to reach (``rates.measure``); as the fields of ``Gpu``."""

    bandwidth_gb_per_s: float
    tflops: float
    link_gb_per_s: float


@dataclass(frozen=True, slots=True)
class _Listed:
    """A GPU as the driver lists it."""

    uuid: str
    name: str
    free_gb: float
    capability: Capability | None
    """None where the driver is too old to say."""


def this_cpu() -> Cpu:
    """The CPU, with the memory that is available now."""
    return Cpu(memory_gb=psutil.virtual_memory().available / BYTES_PER_GB)


def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible, in its order, with the memory that is free now.

    Their rates are those measured on this machine, else the table's.
    """
    rates = read_rates()
    return tuple(_gpu(listed, rates.get(listed.uuid)) for listed in _visible())


def visible_cards() -> tuple[str, ...]:
    """Names of ``visible_gpus``, in that order, as ``CUDA_VISIBLE_DEVICES`` takes them: the user's own, else UUIDs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or _uuids_as_numbered():
        return tuple(listed.uuid for listed in _visible())
    listed = _by_index_and_uuid()
    return tuple(name.strip() for name in visible.split(",") if name.strip() in listed)


def has_unmeasured_gpu() -> bool:
    """Whether nothing is kept of a visible GPU's rates."""
    return not {listed.uuid for listed in _visible()} <= read_rates().keys()


def cache_dir() -> Path:
    """The folder of what this user's machine was found to be, for all working folders."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "probegrid"


def rates_file() -> Path:
    """Where measured rates are kept, by the GPU's UUID."""
    return cache_dir() / "gpu_rates.json"


def read_rates() -> dict[str, Rates]:
    """The rates that are kept; none where the file is missing or damaged: they are measured again."""
    try:
        kept = json.loads(rates_file().read_text())
        return {str(uuid): Rates(**values) for uuid, values in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _visible() -> list[_Listed]:
    listed = _by_index_and_uuid()
    if uuids := _uuids_as_numbered():
        return [listed[uuid] for uuid in uuids if uuid in listed]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [key for key in listed if key.isdecimal()] if visible is None else visible.split(",")
    return [listed[name.strip()] for name in names if name.strip() in listed]


def _uuids_as_numbered() -> list[str]:
    """UUIDs of the GPUs as this process numbers them, if it has asked CUDA for something already; else none."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [f"GPU-{torch.cuda.get_device_properties(gpu).uuid}" for gpu in range(torch.cuda.device_count())]


def _by_index_and_uuid() -> Mapping[str, _Listed]:
    if shutil.which("nvidia-smi") is None:
        return {}
    text = _query("index,uuid,name,memory.free,compute_cap") or _query("index,uuid,name,memory.free")
    gpus: dict[str, _Listed] = {}
    for line in text.strip().splitlines():
        index, uuid, name, free_mib, *said = (part.strip() for part in line.split(","))
        major, _, minor = said[0].partition(".") if said else ("", "", "")
        capability = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None
        listed = _Listed(uuid, name, float(free_mib) * _BYTES_PER_MIB / BYTES_PER_GB, capability)
        gpus |= {index: listed, uuid: listed}
    return gpus


def _query(fields: str) -> str:
    """What the driver's program lists of each GPU; empty where it does not know a field."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _gpu(listed: _Listed, rates: Rates | None) -> Gpu:
    """A GPU by what was measured, else by its name as the driver gives it.

    One that the table does not have is taken for the slowest of its memory.
    """
    known = recognize(listed.name) or assumed_gpu(listed.free_gb)
    found = replace(
        known,
        name=listed.name,
        memory_gb=listed.free_gb,
        capability=listed.capability or known.capability,
    )
    return replace(found, **asdict(rates)) if rates else found
