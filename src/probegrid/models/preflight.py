"""Before a weight is read: whether this machine has, now, what the plan takes for granted.

The plan says what a cell needs; here the machine is asked what is free, and who uses the rest. Everything that is
missing is one sentence, and all of them are said at once.

Knows a plan, GPUs, memory, disks and versions of libraries.
"""

from __future__ import annotations

import csv
import importlib.metadata
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from probegrid.errors import PlanError
from probegrid.hardware.cards import AMPERE, has_code
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.models.checkpoint import Checkpoint
from probegrid.planning.plan import Plan
from probegrid.schema import Dtype, QuantizationMethod

_BITSANDBYTES = (0, 46)
"""Oldest version whose NF4 and int8 run on the CPU too."""
_RECORD_BYTES = BYTES_PER_GB // 10
"""Room for answers, tables and figures; activations ask for more when they are stored."""
_BYTES_PER_MIB = 2**20
_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU as it is now."""

    name: str
    free_bytes: int
    capability: tuple[int, int]
    """Compute capability, major and minor."""
    users: tuple[str, ...] = ()
    """Programs that hold memory of it: ``python (pid 4711, 60.1 GB)``."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine has now."""

    gpus: tuple[GpuState, ...]
    """In torch's order; empty without CUDA."""
    cuda_obstacle: str
    """Why torch sees no GPU; empty if it sees some."""
    cpu_free_bytes: int
    bitsandbytes: str | None
    """Version; None: not installed."""
    architectures: tuple[str, ...] = ()
    """What this torch has code for, as ``torch.cuda.get_arch_list`` names it; empty where nothing is known."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Bytes that will be written under a folder, which need not be there yet."""

    folder: Path
    nbytes: int
    what: str
    """For the message: ``the download``."""


def preflight(
    plan: Plan,
    machine: Machine | None,
    dtype: Dtype,
    method: QuantizationMethod,
    disk: Sequence[DiskNeed] = (),
) -> list[str]:
    """Check that the machine has what the plan needs.

    Args:
        plan: of the cell.
        machine: as ``this_machine`` finds it; None: the model is in memory already, the disk alone counts.
        dtype: type of the computation.
        method: how the blocks' matrices are held.
        disk: what will be written where.

    Returns:
        Sentences about what works but could be better.

    Raises:
        PlanError: something is missing; a sentence for each thing, with the way out.
    """
    missing = list(_missing_disk(disk))
    if machine is not None:
        missing = [
            *_missing_gpus(plan, machine),
            *_missing_cpu_memory(plan, machine),
            *_missing_library(method, machine),
            *missing,
        ]
    if missing:
        raise PlanError(" ".join(missing))
    return [] if machine is None else list(_slow_bfloat16(plan, machine, dtype))


def this_machine(plan: Plan) -> Machine:
    """Ask this machine; GPUs are touched only if the plan uses some."""
    gpus, obstacle = _gpus() if plan.placement.gpus else ((), "")
    architectures = _architectures() if gpus else ()
    try:
        version = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        version = None
    return Machine(gpus, obstacle, psutil.virtual_memory().available, version, architectures)


def disk_needs(
    plan: Plan, checkpoint: Checkpoint, *, store_dir: str, results_dir: str, keeps: bool
) -> list[DiskNeed]:
    """What a cell will write.

    Args:
        plan: of the cell.
        checkpoint: what of it is in the hub's cache already is not counted again.
        store_dir, results_dir: where readings and records go.
        keeps: whether a quantized copy of the weights will be made.
    """
    needs = [
        DiskNeed(Path(store_dir), _RECORD_BYTES, "the readings"),
        DiskNeed(Path(results_dir), _RECORD_BYTES, "the record"),
    ]
    if keeps:
        copy_bytes = plan.disk_bytes - plan.download_bytes
        needs.append(DiskNeed(Path(store_dir), copy_bytes, "the quantized copy (quantization.keep=false)"))
    if checkpoint.commit is not None:
        from huggingface_hub.constants import HF_HUB_CACHE

        blobs = Path(HF_HUB_CACHE) / f"models--{checkpoint.name.replace('/', '--')}" / "blobs"
        cached = sum(file.stat().st_size for file in blobs.glob("*"))
        needs.append(DiskNeed(Path(HF_HUB_CACHE), max(0, plan.download_bytes - cached), "the download"))
    return needs


def _missing_gpus(plan: Plan, machine: Machine) -> Iterator[str]:
    wanted = plan.placement.gpus
    if wanted and not machine.gpus:
        yield f"The plan uses {len(wanted)} GPU(s) and {machine.cuda_obstacle}; `device_map=cpu` needs none."
        return
    if wanted and wanted[-1] >= len(machine.gpus):
        yield (
            f"The plan uses {len(wanted)} GPUs and {len(machine.gpus)} are visible; "
            "`device_map.gpus=null` takes those."
        )
        return
    for index in wanted:
        gpu, needed = machine.gpus[index], plan.loads[index].total
        if not has_code(gpu.capability, machine.architectures):
            has = ".".join(map(str, gpu.capability))
            yield (
                f"GPU {index} ({gpu.name}) has compute capability {has}, and this torch has code for "
                f"{', '.join(machine.architectures)} alone; choose other GPUs by CUDA_VISIBLE_DEVICES, or "
                "`device_map=cpu`; torch of CUDA 12.6 (https://download.pytorch.org/whl/cu126) is the last for cards "
                "before 7.5."
            )
        if needed > gpu.free_bytes:
            users = f", {' and '.join(gpu.users)} using the rest" if gpu.users else ""
            yield (
                f"GPU {index} ({gpu.name}) has {_gb(gpu.free_bytes)} free{users}, and the plan needs {_gb(needed)}; "
                f"free it, choose other GPUs by CUDA_VISIBLE_DEVICES, or set "
                f"`device_map.gpu_memory_gb={int(gpu.free_bytes / BYTES_PER_GB)}`."
            )


def _missing_cpu_memory(plan: Plan, machine: Machine) -> Iterator[str]:
    if plan.cpu_bytes > machine.cpu_free_bytes:
        streamed = len(plan.placement.streamed)
        what = f" for {streamed} of {plan.blocks} blocks" if streamed else ""
        yield (
            f"{_gb(machine.cpu_free_bytes)} of CPU memory are free and the plan needs {_gb(plan.cpu_bytes)}{what}; "
            "free some, use more GPUs, or a smaller quantization."
        )


def _missing_library(method: QuantizationMethod, machine: Machine) -> Iterator[str]:
    if not method.packs:
        return
    oldest = ".".join(map(str, _BITSANDBYTES))
    found = machine.bitsandbytes
    if found is None or tuple(int(part) for part in found.split(".")[:2]) < _BITSANDBYTES:
        there = "is not installed" if found is None else f"{found} is installed"
        yield (
            f"quantization={method.value} needs bitsandbytes {oldest} and it {there}; "
            f"`pip install 'bitsandbytes>={oldest}'`, or quantization=none."
        )


def _missing_disk(needs: Sequence[DiskNeed]) -> Iterator[str]:
    """Needs of one disk are added up."""
    by_disk: dict[int, list[DiskNeed]] = defaultdict(list)
    for need in needs:
        by_disk[_existing(need.folder).stat().st_dev].append(need)
    for group in by_disk.values():
        needed = sum(need.nbytes for need in group)
        free = shutil.disk_usage(_existing(group[0].folder)).free
        if needed > free:
            largest = max(group, key=lambda need: need.nbytes)
            yield (
                f"The disk of {largest.folder} has {_gb(free)} free and {_gb(needed)} will be written, most of it "
                f"{largest.what}; make room or choose another folder."
            )


def _slow_bfloat16(plan: Plan, machine: Machine, dtype: Dtype) -> Iterator[str]:
    if dtype is not Dtype.bfloat16:
        return
    for index in plan.placement.gpus:
        gpu = machine.gpus[index]
        if gpu.capability < AMPERE:
            yield f"GPU {index} ({gpu.name}) computes bfloat16 slowly; `model.dtype=float16` is faster on it."


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that is there."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gpus() -> tuple[tuple[GpuState, ...], str]:
    """The GPUs as torch sees them, or why it sees none."""
    import torch

    if torch.version.cuda is None:
        return (), f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return (), f"torch sees none (it wants CUDA {torch.version.cuda}: is the driver as new?)"
    users = _users()
    states = []
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        uuid = f"GPU-{found.uuid}"
        free = torch.cuda.mem_get_info(index)[0]
        states.append(GpuState(found.name, free, (found.major, found.minor), tuple(users.get(uuid, ()))))
    return tuple(states), ""


def _architectures() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_arch_list())


def _users() -> dict[str, list[str]]:
    """Programs that compute on each GPU, by its UUID; empty where nvidia-smi is missing or does not say."""
    query = [
        "nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits",
    ]  # fmt: skip
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_users(listed)


def parse_users(listed: str) -> dict[str, list[str]]:
    """Read nvidia-smi's list: ``uuid, pid, name, MiB`` a line; the memory may be ``[N/A]``."""
    users: dict[str, list[str]] = defaultdict(list)
    for row in csv.reader(listed.splitlines(), skipinitialspace=True):
        if len(row) != 4:
            continue
        uuid, pid, name, used_mib = row
        held = f", {_gb(int(used_mib) * _BYTES_PER_MIB)}" if used_mib.isdecimal() else ""
        users[uuid].append(f"{Path(name).name} (pid {pid}{held})")
    return users


def _gb(count: float) -> str:
    return f"{count / BYTES_PER_GB:.1f} GB"
