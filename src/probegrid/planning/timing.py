"""How long a forward pass and a whole reading take on given devices: a roofline with few constants.

Knows operations, bytes moved and rates. Devices of one model work one after another; copies of streamed blocks run
beside the computing of the others. Estimates, not promises: of whole cells on one and two H100s
(``benchmarks/real_cells.py``) and of 400 five-shot questions to a Llama-70B in NF4 on one H200 (23.7 s) they were
within a fifth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from probegrid.hardware.devices import BYTES_PER_GB, Cpu, Gpu, Hardware
from probegrid.planning.architecture import (
    DTYPE_BYTES,
    block_flops_per_token,
    head_flops_per_token,
    kv_bytes_per_token,
)
from probegrid.planning.placement import Device, Placement
from probegrid.planning.requirements import Facts
from probegrid.planning.workload import Batch
from probegrid.schema import QuantizationMethod

_FLOP_SHARE = 0.62
"""Of a large matrix product's rate, what a prefill behind a shared prefix reaches (measured: 0.6 to 0.7)."""
_BANDWIDTH_SHARE = 0.8
"""Of a large copy's rate, what a decoding step reaches."""
_LINK_SHARE = 0.85
"""Of a large pinned copy's rate, what streamed blocks reach (measured: 46.9 of 55 GB/s)."""
_BLOCK_S = 0.8e-3
"""Running a block's code in Python (80 blocks took 116 ms on a GPU, as one CUDA graph 44 ms)."""


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds of one reading."""

    prefix_s: float
    """The shared prefix, once."""
    prefill_s: float
    """The examples' own tokens."""
    decode_s: float
    """The generated tokens after the first of each answer."""

    @property
    def total_s(self) -> float:
        """All three."""
        return self.prefix_s + self.prefill_s + self.decode_s


@dataclass(frozen=True, slots=True)
class _Pass:
    """One forward pass."""

    tokens: int
    attended: float
    """Tokens each token attends to, on average."""
    cached: int
    """Tokens whose keys and values are read from memory."""
    logits: int
    """Positions the head is applied to."""


def reading_duration(facts: Facts, placement: Placement, batch: Batch) -> Duration:
    """Seconds to read the workload of ``facts`` in such batches."""
    work = facts.workload
    prefix, own = work.prefix_tokens, work.prompt_tokens
    passes = math.ceil(prefix / batch.pass_tokens)
    prefix_s = (
        passes * _pass_s(facts, placement, _Pass(prefix // passes, prefix / 2, 0, 0)) if prefix else 0.0
    )
    prefill_s = decode_s = 0.0
    for examples, times in _batches(work.examples, batch.size):
        passes = min(examples, math.ceil(examples * own / batch.pass_tokens))
        rows = examples / passes
        prefill = _Pass(round(rows * own), prefix + own / 2, prefix, round(rows))
        prefill_s += times * passes * _pass_s(facts, placement, prefill)
        if work.generates:
            rows, length = examples * work.generations, own + work.new_tokens // 2
            step = _Pass(rows, prefix + length, prefix + rows * length, rows)
            decode_s += times * (work.new_tokens - 1) * _pass_s(facts, placement, step)
    return Duration(prefix_s, prefill_s, decode_s)


def _batches(examples: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Sizes of the batches and how often each occurs."""
    whole, rest = divmod(examples, batch_size)
    if whole:
        yield batch_size, whole
    if rest:
        yield rest, 1


def _pass_s(facts: Facts, placement: Placement, forward: _Pass) -> float:
    """Seconds of one pass: the computing, or the slowest GPU's copies if they take longer."""
    architecture, dtype, hardware = facts.architecture, facts.dtype, facts.hardware
    block_bytes = facts.weights.block

    block_flops = forward.tokens * block_flops_per_token(architecture, forward.attended)
    cache_traffic = forward.cached * kv_bytes_per_token(architecture, dtype, blocks=1)
    block_traffic = _weight_traffic(facts, forward.tokens) + cache_traffic
    compute_s = sum(
        blocks * _compute_s(_rates(device, hardware), block_flops, block_traffic)
        for device, blocks in Counter(placement.blocks).items()
    )
    if placement.head is not None and forward.logits:
        head_bytes = architecture.vocab * architecture.hidden * DTYPE_BYTES[dtype]
        head_flops = forward.logits * head_flops_per_token(architecture)
        compute_s += _compute_s(_rates(placement.head, hardware), head_flops, head_bytes)
    copies_s = (
        len(blocks) * block_bytes / (hardware.gpus[gpu].link_gb_per_s * BYTES_PER_GB * _LINK_SHARE)
        for gpu, blocks in placement.streams().items()
    )
    return max(compute_s, max(copies_s, default=0.0))


def _weight_traffic(facts: Facts, tokens: int) -> float:
    """Bytes of weights one block moves through device memory in a pass.

    A mixture reads the experts that some token chose. NF4 with more than one token writes the unpacked
    weights and reads them again.
    """
    architecture = facts.architecture
    share = 1 - (1 - architecture.experts_per_token / architecture.experts) ** tokens
    moved = float(facts.weights.block)
    if facts.method is QuantizationMethod.nf4 and tokens > 1:
        moved += 2 * DTYPE_BYTES[facts.dtype] * facts.parameters.block
    return moved * share


def _compute_s(device: Gpu | Cpu, flops: float, traffic_bytes: float) -> float:
    flops_s = flops / (device.tflops * 1e12 * _FLOP_SHARE)
    traffic_s = traffic_bytes / (device.bandwidth_gb_per_s * BYTES_PER_GB * _BANDWIDTH_SHARE)
    return _BLOCK_S + max(flops_s, traffic_s)


def _rates(device: Device, hardware: Hardware) -> Gpu | Cpu:
    return hardware.gpus[device] if isinstance(device, int) else hardware.cpu
