"""The plan of a cell: what it needs and how long it takes, before a byte is read.

Knows which numbers a plan is made of. A pure function of facts, so that a plan for a cluster can be made anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from probegrid.errors import PlanError
from probegrid.hardware.devices import BYTES_PER_GB, Hardware
from probegrid.planning.architecture import DTYPE_BYTES, Parts, active_parameters, packed_share
from probegrid.planning.candidates import Option, best, options
from probegrid.planning.placement import Device, Load, Placement
from probegrid.planning.refusal import refusal
from probegrid.planning.replicas import replicas_of, with_room
from probegrid.planning.requirements import Facts
from probegrid.planning.stored import StoredForm
from probegrid.planning.timing import Duration, lanes_of
from probegrid.planning.workload import Workload
from probegrid.schema import (
    Architecture,
    DeviceMapConfig,
    Dtype,
    PlacementStrategy,
    QuantizationMethod,
    Resources,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reading of examples of any length keeps to."""

    rows: int
    """Most sequences side by side: the examples of a batch, each as often as it is answered."""
    pass_tokens: int
    """Most tokens in one forward pass; a single row may be longer."""
    cache_tokens: int | None
    """Most tokens with keys and values kept, beside the shared prefix's, all rows as long as the longest may grow: what
    the budgets of the placement's devices hold. None: no limit is known, or none are kept."""
    lanes: int | None = None
    """Groups of rows that take their steps side by side; None: as many as the placement has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything known about a cell before it runs. GB are 10^9 bytes."""

    parameters: int
    """Of the whole checkpoint."""
    active_parameters: int
    """Of the whole checkpoint, those one token passes through."""
    loaded_parameters: int
    """Of the blocks this cell loads, with the embedding and, if it is loaded, the head."""
    layers: int
    """Blocks of the checkpoint."""
    blocks: int
    """Blocks to load."""
    dtype: str
    quantization: str
    storage: str
    """What share of the weights of the loaded blocks is held in how many bits."""
    weight_bytes: int
    """Of everything loaded, on all devices, quantization constants included."""
    kv_bytes_per_token: int
    """Keys and values of one token in the loaded blocks; 0 where none are kept."""
    prefix_bytes: int
    """Keys and values of the shared prefix, held once."""
    activation_bytes: int
    """Working memory of a computing device at its peak, logits left out."""
    placement: Placement
    loads: dict[Device, Load]
    """What each device holds at the peak."""
    batch_size: int
    """Examples in a batch, where they are as long as estimated."""
    limits: Limits
    """The batch, for examples of other lengths too."""
    largest_batch: int
    """Most examples (of the sizes tried) that fit in a batch, whatever the speed."""
    download_bytes: int
    """Weights to fetch: those of the loaded parts, in ``dtype`` or as they are stored; files are whole, so a little
    more."""
    disk_bytes: int
    """What was fetched, and the quantized copy that is kept."""
    load_s: float
    """Disk to devices, the pinning of streamed blocks included; not the download."""
    duration: Duration
    """Seconds of the reading."""
    tokens_per_s: float
    """Tokens generated, or read where none are generated, a second of the reading."""
    notes: tuple[str, ...] = ()
    """What the user should know although nothing is wrong."""
    replicas: int = 1
    """Copies of the model that share the reading, each on devices as ``placement`` says, of its own. All else but
    ``tokens_per_s`` and ``hours`` is of one copy; ``duration`` is of one that reads alone."""

    @property
    def gpus(self) -> int:
        """GPUs used."""
        return len(self.placement.gpus)

    @property
    def gpu_bytes(self) -> int:
        """Held on all GPUs together at the peak."""
        return sum(load.total for device, load in self.loads.items() if device != "cpu")

    @property
    def cpu_bytes(self) -> int:
        """CPU memory for weights at rest and, where the CPU computes, for all else."""
        return self.loads["cpu"].total if "cpu" in self.loads else 0

    @property
    def hours(self) -> float:
        """Loading and reading, by all copies side by side."""
        return (self.load_s + self.duration.total_s / self.replicas) / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours times the GPUs used, by all copies."""
        return self.hours * self.gpus * self.replicas

    def resources(self) -> Resources:
        """What to ask a scheduler for a copy: twice the time and 15 minutes, 8 GB of CPU memory to spare."""
        return Resources(
            gpus=self.gpus,
            cpus=4 * max(1, self.gpus),
            mem_gb=float(math.ceil(self.cpu_bytes / BYTES_PER_GB) + 8),
            timeout_min=15 + math.ceil(2 * 60 * self.hours),
        )

    def in_copies(self, replicas: int) -> Plan:
        """The same for so many copies of the model, of a plan for one."""
        return replace(self, replicas=replicas, tokens_per_s=self.tokens_per_s * replicas)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["placement"] = self.placement.as_dict()
        values["loads"] = {
            str(device): asdict(load) | {"total": load.total} for device, load in self.loads.items()
        }
        values["notes"] = list(self.notes)
        return values | {
            "gpus": self.gpus,
            "gpu_bytes": self.gpu_bytes,
            "cpu_bytes": self.cpu_bytes,
            "hours": self.hours,
            "gpu_hours": self.gpu_hours,
        }


def plan(
    architecture: Architecture,
    *,
    dtype: Dtype,
    quantization: QuantizationMethod,
    device_map: DeviceMapConfig,
    hardware: Hardware,
    workload: Workload,
    placement: Placement | None = None,
    form: StoredForm | None = None,
    stored: Parts | None = None,
    streams: bool = True,
) -> Plan:
    """Choose a placement and a batch size and say what they need.

    Args:
        architecture: the model's facts.
        dtype: type of the weights that are not quantized, of the computation and of the cache.
        quantization: how the matrices of the blocks are stored.
        device_map: strategy and overhead; its GPUs and memory are already in ``hardware`` (``hardware_for``).
        hardware: the devices that may be used.
        workload: the tokens to read.
        placement: where the model lies already, so that only the batch is chosen; left aside if nothing fits there.
        form: how the checkpoint is quantized already; None: it is not.
        stored: bytes of each part as it is stored, where no arithmetic gives them.
        streams: whether blocks may wait in CPU memory.

    Raises:
        PlanError: no placement keeps to the budgets, or a layer is asked for that is not there; the message
            says why and which nearest configuration works.
    """
    strategy = device_map.strategy
    facts = Facts(
        architecture,
        dtype,
        quantization,
        strategy,
        device_map.overhead_gb,
        hardware,
        workload,
        stored=stored,
        streams=streams,
        is_quantized=form is not None,
    )
    if not 0 <= facts.blocks <= architecture.layers:
        raise PlanError(
            f"Layer {facts.blocks} is asked for and the model has {architecture.layers} blocks; "
            f"`probe.layers` takes 0 (the embeddings) to {architecture.layers}."
        )
    if strategy in (PlacementStrategy.single, PlacementStrategy.balanced) and not hardware.gpus:
        raise PlanError(
            f"device_map={strategy.value} needs a GPU and none is given; `device_map=cpu` needs none, "
            "and `device_map.gpus=1 device_map.gpu_memory_gb=24` plans for one elsewhere."
        )
    candidates: Sequence[Option] = list(options(facts, placement)) or list(options(facts))
    if not candidates:
        raise refusal(facts, device_map.replicas)
    candidates = with_room(device_map.replicas, facts, candidates)
    largest_batch = max(option.batch.size for option in candidates)
    chosen = best(candidates, len(hardware.gpus))
    replicas, said = replicas_of(device_map.replicas, facts, chosen)
    found = _plan_of(facts, chosen, largest_batch, form)
    return replace(found, notes=(*found.notes, *filter(None, [said]))).in_copies(replicas)


def _plan_of(facts: Facts, option: Option, largest_batch: int, form: StoredForm | None) -> Plan:
    architecture, work = facts.architecture, facts.workload
    blocks, with_head = len(option.placement.blocks), option.placement.head is not None
    loaded_parameters = facts.parameters.total(blocks, with_head=with_head)
    weight_bytes = facts.weights.total(blocks, with_head=with_head)
    download_bytes = weight_bytes if form else loaded_parameters * DTYPE_BYTES[facts.dtype]
    keeps_copy = facts.method.packs and form is None
    kept_copy_bytes = weight_bytes if keeps_copy else 0
    kv_bytes_per_token = blocks * facts.kv_block_bytes_per_token
    rows, passes = option.batch.size * work.generations, facts.passes_through(option.placement)
    tokens = work.examples * (work.generations * work.new_tokens if work.generates else work.prompt_tokens)
    return Plan(
        parameters=facts.parameters.total(architecture.layers),
        active_parameters=active_parameters(architecture),
        loaded_parameters=loaded_parameters,
        layers=architecture.layers,
        blocks=blocks,
        dtype=facts.dtype.value,
        quantization=facts.method.value if form is None else form.name,
        storage=_storage(facts, blocks),
        weight_bytes=weight_bytes,
        kv_bytes_per_token=kv_bytes_per_token,
        prefix_bytes=work.prefix_tokens * kv_bytes_per_token,
        activation_bytes=facts.activation_bytes(option.batch, *passes),
        placement=option.placement,
        loads=option.loads,
        batch_size=option.batch.size,
        limits=Limits(
            rows,
            facts.pass_limit(option.batch, *passes),
            _cache_tokens(facts, option),
            lanes_of(facts, option.placement, option.batch.size) if work.generates else None,
        ),
        largest_batch=largest_batch,
        download_bytes=download_bytes,
        disk_bytes=download_bytes + kept_copy_bytes,
        load_s=_load_s(facts.hardware, option, download_bytes),
        duration=option.duration,
        tokens_per_s=tokens / option.duration.total_s if option.duration.total_s else 0.0,
        notes=tuple(_notes(facts)),
    )


def _storage(facts: Facts, blocks: int) -> str:
    """As ``Plan.storage``."""
    if blocks == 0:
        return "no blocks"
    if facts.stored is not None:
        stored = sum(facts.stored.of_block(index) for index in range(blocks))
        weights = sum(facts.parameters.of_block(index) for index in range(blocks))
        return f"blocks as they are stored, {8 * stored / weights:.3g} bits a weight"
    usual = 8 * DTYPE_BYTES[facts.dtype]
    if not facts.method.packs:
        return f"blocks 100% in {usual} bits"
    share = 100 * packed_share(facts.architecture, blocks)
    others = f", {100 - share:.1f}% in {usual}" if share < _ALL else ""
    return f"blocks {share:.1f}% in {_BITS[facts.method]} bits{others}"


_ALL = 99.95
"""Per cent that are shown as 100.0."""
_BITS = {QuantizationMethod.nf4: 4, QuantizationMethod.int8: 8}


def _cache_tokens(facts: Facts, option: Option) -> int | None:
    """As ``Limits.cache_tokens``."""
    most = math.inf
    for device, blocks in option.placement.counts.items():
        load, of_a_token = option.loads[device], blocks * facts.kv_block_bytes_per_token
        budget = facts.gpu_budgets[device] if isinstance(device, int) else facts.cpu_budget
        if of_a_token:
            most = min(most, (budget - load.total + load.kv) / of_a_token - facts.workload.prefix_tokens)
    return None if math.isinf(most) else int(most)


def _load_s(hardware: Hardware, option: Option, checkpoint_bytes: int) -> float:
    """Disk to CPU, then pinned memory for what streams, and the link of each GPU for what stays there."""
    seconds = checkpoint_bytes / (hardware.disk_gb_per_s * BYTES_PER_GB)
    for device, load in option.loads.items():
        if isinstance(device, int):
            seconds += load.weights / (hardware.gpus[device].link_gb_per_s * BYTES_PER_GB)
        elif option.placement.streamed:
            seconds += load.weights / (hardware.pin_gb_per_s * BYTES_PER_GB)
    return seconds


def _notes(facts: Facts) -> Iterator[str]:
    work, context = facts.workload, facts.architecture.context
    longest = work.prefix_tokens + work.prompt_tokens + work.new_tokens
    if longest > context:
        yield (
            f"Prompts and answers are estimated at {longest} tokens and the model takes {context}; "
            "fewer examples (`prompt.num_few_shot`) make them shorter."
        )
