"""Why a cell cannot work on the hardware given, and the nearest configuration that does.

Knows which single changes of a configuration are worth trying.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice

from probegrid.errors import PlanError
from probegrid.hardware.devices import BYTES_PER_GB, GPUS
from probegrid.planning.candidates import Option, batches, options
from probegrid.planning.placement import Placement, placements
from probegrid.planning.replicas import AUTO, room_of
from probegrid.planning.requirements import Facts
from probegrid.schema import PlacementStrategy, QuantizationMethod


def refusal(facts: Facts, replicas: str = AUTO) -> PlanError:
    """Why nothing fits, and the two changes nearest to it that do, with as many copies as are asked for if any do so.

    Args:
        facts: what does not fit.
        replicas: copies of the model that were asked for.
    """
    copies = 1 if replicas == AUTO else int(replicas)
    found = list(islice(_working(facts, copies), 2))
    if not found and copies > 1:
        found = list(islice(_working(facts, 1, f" device_map.replicas={AUTO}"), 2))
    return PlanError(f"{_reason(facts)}; {' and '.join(found) or 'nothing near it works'}.")


def _working(facts: Facts, copies: int, beside: str = "") -> Iterator[str]:
    """What works, the nearest first; each with ``beside`` typed too."""
    for change, changed in chain(_alternatives(facts, copies), _alternatives_in_nf4(facts, copies)):
        option = _leanest(changed, copies)
        if option is not None:
            yield f"`{change}{beside}` works ({_needs(option)}{' a copy' if copies > 1 else ''})"


def _leanest(facts: Facts, copies: int) -> Option | None:
    """The option with the fewest bytes, at the smallest batch, of which so many have room; None if nothing fits."""
    smallest = replace(facts, workload=replace(facts.workload, batch_size=batches(facts)[0].size))
    candidates = (option for option in options(smallest) if room_of(smallest, option) >= copies)
    return min(candidates, key=lambda option: (option.cpu_bytes, option.gpu_bytes), default=None)


def _alternatives(facts: Facts, copies: int) -> Iterator[tuple[str, Facts]]:
    """Changes of one value: batch, format, strategy, then more memory, then no GPU."""
    if facts.workload.batch_size is not None:
        yield "decoding.batch_size=auto", replace(facts, workload=replace(facts.workload, batch_size=None))
    for method in () if facts.is_quantized else (QuantizationMethod.int8, QuantizationMethod.nf4):
        if replace(facts, method=method).weights.block < facts.weights.block:
            yield f"quantization={method.value}", replace(facts, method=method)
    if facts.strategy in (PlacementStrategy.single, PlacementStrategy.balanced):
        yield "device_map=auto", replace(facts, strategy=PlacementStrategy.auto)
    enough = _leanest(_with_cpu_memory(facts, None), copies)
    if enough is not None and copies * enough.cpu_bytes > facts.cpu_budget:
        memory_gb = math.ceil(copies * enough.cpu_bytes / BYTES_PER_GB)
        yield f"device_map.cpu_memory_gb={memory_gb}", _with_cpu_memory(facts, memory_gb)
    for memory_gb in sorted({int(gpu.memory_gb) for gpu in GPUS.values()}):
        larger = _with_gpu_memory(facts, memory_gb)
        if larger != facts and _leanest(larger, copies) is not None:
            yield f"device_map.gpu_memory_gb={memory_gb}", larger
            break
    if facts.strategy is not PlacementStrategy.cpu:
        yield "device_map=cpu", replace(facts, strategy=PlacementStrategy.cpu)


def _alternatives_in_nf4(facts: Facts, copies: int) -> Iterator[tuple[str, Facts]]:
    """The same changes with the smallest format, where that alone is not enough."""
    smallest = replace(facts, method=QuantizationMethod.nf4)
    if facts.method is QuantizationMethod.nf4 or facts.is_quantized:
        return
    if _leanest(smallest, copies) is None:
        for change, changed in _alternatives(smallest, copies):
            yield f"quantization=nf4 {change}", changed


def _with_gpu_memory(facts: Facts, memory_gb: float) -> Facts:
    """The same GPUs with at least ``memory_gb`` each."""
    gpus = tuple(replace(gpu, memory_gb=max(memory_gb, gpu.memory_gb)) for gpu in facts.hardware.gpus)
    return replace(facts, hardware=replace(facts.hardware, gpus=gpus))


def _with_cpu_memory(facts: Facts, memory_gb: float | None) -> Facts:
    cpu = replace(facts.hardware.cpu, memory_gb=memory_gb)
    return replace(facts, hardware=replace(facts.hardware, cpu=cpu))


def _reason(facts: Facts) -> str:
    """What is missing, for the smallest batch that was tried."""
    smallest = batches(facts)[0]
    demand = facts.demand(smallest)
    candidates = list(placements(demand, facts.gpu_budgets, facts.strategy, streams=facts.streams))
    if candidates:
        leanest = min(candidates, key=lambda placement: placement.loads(demand)["cpu"].total)
        what = f" for {len(leanest.streamed)} of {facts.blocks} blocks" if leanest.streamed else ""
        needed, given = _apart(leanest.loads(demand)["cpu"].total, facts.cpu_budget)
        return f"This needs {needed} of CPU memory{what} and {given} are given"
    usable, memory_gb = min(facts.gpu_budgets), min(gpu.memory_gb for gpu in facts.hardware.gpus)
    free = (
        f"{_gb(usable)} of a GPU's {memory_gb:g} GB are" if usable > 0 else f"nothing of {memory_gb:g} GB is"
    )
    given = f"{free} free after `device_map.overhead_gb={facts.overhead_gb:g}`"
    batch = f"a batch of {smallest.size}" if smallest.size > 1 else "one example at a time"
    if facts.strategy is PlacementStrategy.single:
        alone = Placement(0, (0,) * facts.blocks, (), 0 if facts.with_head else None).loads(demand)[0]
        return f"This needs {_gb(alone.total)} on one GPU for {batch}, and {given}"
    if not facts.streams:
        held = demand.weights.total(facts.blocks, with_head=facts.with_head) + facts.blocks * demand.kv_block
        return (
            f"The GPUs must hold all {facts.blocks} blocks, {_gb(held)} with keys and values for {batch}, and "
            f"{_gb(demand.activations)} of working memory each, for what transformers itself loads does not wait in "
            f"CPU memory, and {given}"
        )
    return (
        f"Beside {_gb(demand.activations)} of working memory for {batch}, a GPU must hold two blocks of "
        f"{_gb(demand.weights.block)} and {_gb(demand.kv_block)} of keys and values for each of its blocks, "
        f"and {given}"
    )


def _needs(option: Option) -> str:
    gpus = len(option.placement.gpus)
    needs = [f"{_gb(option.gpu_bytes)} on {gpus} GPU{'s' if gpus > 1 else ''}"] if gpus else []
    if option.cpu_bytes:
        needs.append(f"{_gb(option.cpu_bytes)} of CPU memory")
    return ", ".join(needs)


def _apart(needed: float, given: float) -> tuple[str, str]:
    """What is needed and what is given, with as many digits as tell them apart."""
    pairs = ((_gb(needed, digits), _gb(given, digits)) for digits in range(1, 10))
    return next((pair for pair in pairs if pair[0] != pair[1]), (f"{needed:.0f} B", f"{given:.0f} B"))


def _gb(count: float, digits: int = 1) -> str:
    unit, name = (BYTES_PER_GB, "GB") if count >= BYTES_PER_GB / 10 else (10**6, "MB")
    return f"{count / unit:.{digits}f} {name}"
