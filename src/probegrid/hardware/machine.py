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

from probegrid.errors import PlanError
from probegrid.hardware.cards import Capability, Gpu, assumed_gpu, recognize
from probegrid.hardware.devices import BYTES_PER_GB, Cpu
from probegrid.hardware.slices import Slice, slices_in

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
    free_mib: str
    """Free memory as the driver writes it, a number or why there is none."""
    capability: Capability | None
    """None where the driver is too old to say."""
    slices: tuple[Slice, ...] = ()
    """Of a card that is divided: the GPUs that CUDA has in its place."""
    slice: Slice | None = None
    """Which of them it is; None: a whole card."""


def this_cpu() -> Cpu:
    """The CPU, with the memory that is available now."""
    return Cpu(memory_gb=psutil.virtual_memory().available / BYTES_PER_GB)


def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible, in its order, with the memory that is free now.

    Their rates are those measured on this machine, else the table's.

    Raises:
        PlanError: the driver cannot say how much memory is free on one.
    """
    rates = read_rates()
    return tuple(_gpu(listed, _kept(listed, rates)) for _, listed in _visible())


def visible_cards() -> tuple[str, ...]:
    """Names of ``visible_gpus``, in that order, as ``CUDA_VISIBLE_DEVICES`` takes them: the user's own, else UUIDs."""
    return tuple(name for name, _ in _visible())


def has_unmeasured_gpu() -> bool:
    """Whether nothing is kept of a visible GPU's rates."""
    rates = read_rates()
    return any(_kept(listed, rates) is None for _, listed in _visible())


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


def _kept(listed: _Listed, rates: Mapping[str, Rates]) -> Rates | None:
    """What is kept of a GPU, under its UUID as torch writes it: as a card's, a slice's too."""
    return rates.get(listed.uuid) or rates.get(listed.uuid.replace("MIG-", "GPU-", 1))


def _visible() -> list[tuple[str, _Listed]]:
    """The GPUs that are visible, each under a name that ``CUDA_VISIBLE_DEVICES`` takes."""
    listed = _by_index_and_uuid()
    numbered = [
        (uuid, listed[uuid])
        for known in _uuids_as_numbered()
        for uuid in (known, known.replace("GPU-", "MIG-", 1))
        if uuid in listed
    ]
    if numbered:
        return numbered
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [key for key in listed if key.isdecimal()] if visible is None else visible.split(",")
    named = [(name.strip(), _named(name.strip(), listed)) for name in names]
    found = [(gpu.uuid if visible is None else name, gpu) for name, gpu in named if gpu is not None]
    first = next((each for each in found if each[1].slice is not None), None)
    return found if first is None else [first]  # a process has one slice (NVIDIA's MIG user guide)


def _named(name: str, listed: Mapping[str, _Listed]) -> _Listed | None:
    """The GPU that CUDA takes a name for: an index, a UUID or how one begins; of a divided card its first slice."""
    gpu = listed.get(name) or next(
        (gpu for uuid, gpu in listed.items() if name.startswith(("GPU-", "MIG-")) and uuid.startswith(name)),
        None,
    )
    return listed[gpu.slices[0].uuid] if gpu is not None and gpu.slices else gpu


def _uuids_as_numbered() -> list[str]:
    """UUIDs of the GPUs as this process numbers them, if it has asked CUDA for something already; else none."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [f"GPU-{torch.cuda.get_device_properties(gpu).uuid}" for gpu in range(torch.cuda.device_count())]


def _by_index_and_uuid() -> Mapping[str, _Listed]:
    if shutil.which("nvidia-smi") is None:
        return {}
    fields = "index,uuid,name,memory.free"
    text = (
        _query(f"{fields},compute_cap,mig.mode.current") or _query(f"{fields},compute_cap") or _query(fields)
    )
    lines = [[part.strip() for part in line.split(",")] for line in text.strip().splitlines()]
    slices = slices_in(_driver("-L")) if any("Enabled" in said[5:] for said in lines) else []
    gpus: dict[str, _Listed] = {}
    for index, uuid, name, free_mib, *said in lines:
        major, _, minor = said[0].partition(".") if said else ("", "", "")
        capability = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None
        own = tuple(each for each in slices if each.card == uuid)
        listed = _Listed(uuid, name, free_mib, capability, own)
        gpus |= {index: listed, uuid: listed}
        gpus |= {each.uuid: _Listed(each.uuid, name, free_mib, capability, (), each) for each in own}
    return gpus


def _free_gb(listed: _Listed) -> float:
    """Of a slice all that it has; where the driver knows no memory, the GPU has the CPU's for its own.

    Raises:
        PlanError: the driver says something else that is no number: not permitted, or that the GPU is broken.
    """
    if listed.slice is not None:
        return float(listed.slice.memory_gb)
    if listed.free_mib in ("[N/A]", "[Not Supported]"):
        return psutil.virtual_memory().available / BYTES_PER_GB
    try:
        return float(listed.free_mib) * _BYTES_PER_MIB / BYTES_PER_GB
    except ValueError:
        raise PlanError(
            f"nvidia-smi says {listed.free_mib} where the free memory of {listed.name} ({listed.uuid}) should be; "
            "name the other GPUs in `CUDA_VISIBLE_DEVICES`, or leave it empty for none."
        ) from None


def _query(fields: str) -> str:
    """What the driver's program lists of each GPU; empty where it does not know a field."""
    return _driver(f"--query-gpu={fields}", "--format=csv,noheader,nounits")


def _driver(*words: str) -> str:
    """What the driver's program prints; empty where it fails."""
    command = ["nvidia-smi", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _gpu(listed: _Listed, rates: Rates | None) -> Gpu:
    """A GPU by what was measured, else by its name as the driver gives it.

    One that the table does not have is taken for the slowest of its memory.
    """
    free_gb = _free_gb(listed)
    known = recognize(listed.name) or assumed_gpu(free_gb)
    found = replace(known, name=listed.name, capability=listed.capability or known.capability)
    found = replace(found, memory_gb=free_gb) if listed.slice is None else listed.slice.of(found)
    return replace(found, **asdict(rates)) if rates else found
