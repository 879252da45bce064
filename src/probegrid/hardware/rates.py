"""What the GPUs of this machine reach, measured once and kept, so that plans count on them and not on a datasheet.

Knows three small measurements and the file they are kept in (``machine.RATES_FILE``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from filelock import FileLock

from probegrid.disk import atomic, disk_errors
from probegrid.errors import StoreError
from probegrid.hardware.cards import AMPERE, TENSOR_CORES, has_code
from probegrid.hardware.devices import BYTES_PER_GB
from probegrid.hardware.machine import Rates, rates_file, read_rates
from probegrid.hardware.memory import or_none_if_out_of_memory

_COPIED_BYTES = BYTES_PER_GB // 2
_PINNED_BYTES = BYTES_PER_GB // 4
_WIDTH = 8192
_REPEATS = 5


def measure_unknown() -> list[str]:
    """Measure every visible GPU that nothing is kept of; takes about a second each.

    Returns:
        A sentence on each GPU that was measured, and one where the rates could not be kept. A GPU that has no memory
        to spare is left for another time.
    """
    known, found = read_rates(), {}
    for index in range(torch.cuda.device_count()):
        uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        if uuid not in known and has_code(
            torch.cuda.get_device_capability(index), torch.cuda.get_arch_list()
        ):  # else the plan says what is wrong
            rates = or_none_if_out_of_memory(partial(measure, index))
            if rates is not None:
                found[uuid] = rates
    said = [
        f"measured {uuid[:12]}: {rates.bandwidth_gb_per_s:.0f} GB/s of memory, {rates.tflops:.0f} TFLOP/s, "
        f"{rates.link_gb_per_s:.0f} GB/s from CPU memory"
        for uuid, rates in found.items()
    ]
    try:
        _keep(found)
    except StoreError as error:  # a plan with the table's rates is a plan too
        said.append(str(error))
    return said


def measure(index: int) -> Rates:
    """Measure one GPU: copies within it (bytes read and written), from page-locked memory, and a matrix product.

    Raises:
        torch.OutOfMemoryError: 1 GB is not free.
    """
    device = torch.device("cuda", index)
    with torch.cuda.device(device):
        rates = Rates(
            bandwidth_gb_per_s=_copy_gb_per_s(device),
            tflops=_product_tflops(device),
            link_gb_per_s=_link_gb_per_s(device),
        )
        torch.cuda.empty_cache()
    return rates


def _copy_gb_per_s(device: torch.device) -> float:
    source = torch.empty(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _best_s(lambda: target.copy_(source)) / BYTES_PER_GB


def _link_gb_per_s(device: torch.device) -> float:
    source = torch.empty(_PINNED_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(_PINNED_BYTES, dtype=torch.uint8, device=device)
    return _PINNED_BYTES / _best_s(lambda: target.copy_(source, non_blocking=True)) / BYTES_PER_GB


def _product_tflops(device: torch.device) -> float:
    matrix = torch.randn(_WIDTH, _WIDTH, device=device, dtype=_dtype(device))
    return 2 * _WIDTH**3 / _best_s(lambda: matrix @ matrix) / 1e12


def _dtype(device: torch.device) -> torch.dtype:
    capability = torch.cuda.get_device_capability(device)
    if capability >= AMPERE:
        return torch.bfloat16
    return torch.float16 if capability >= TENSOR_CORES else torch.float32


def _best_s(call: Callable[[], object]) -> float:
    """Seconds of the fastest of five calls."""
    times_s: list[float] = []
    for _ in range(1 + _REPEATS):  # the first warms up
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        times_s.append(begin.elapsed_time(end) / 1e3)
    return min(times_s[1:])


def _keep(found: dict[str, Rates]) -> None:
    """Add to what other processes of this user may be writing too."""
    if not found:
        return
    file = rates_file()
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")), atomic(file) as temporary:
            kept = read_rates() | found
            temporary.write_text(json.dumps({uuid: asdict(rates) for uuid, rates in kept.items()}, indent=1))
