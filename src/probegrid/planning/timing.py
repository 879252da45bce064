"""How long a forward pass and a whole reading take on given devices: a roofline with few constants.

Knows operations, bytes moved and rates. GPUs of one model work in turn, each on another pass or on another lane of
rows; copies of streamed blocks run beside the computing of the others. Estimates, not promises.
"""

from __future__ import annotations

import math
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
from probegrid.planning.workload import Batch, pass_tokens
from probegrid.schema import Dtype, QuantizationMethod

_FLOP_SHARE, _FUSED_FLOP_SHARE = 0.62, 0.78
"""Of a large matrix product's rate, what a prefill behind a shared prefix reaches: with the model's own elementwise
operations, and with fused ones (measured: 0.77 to 0.80 on an 8B in bf16 and a 70B in NF4)."""
_BANDWIDTH_SHARE = 0.8
"""Of a large copy's rate, what a decoding step reaches."""
_LINK_SHARE, _LINKS_GB_PER_S = 0.85, 168.0
"""Of a large pinned copy's rate, what streamed blocks reach (measured: 46.9 of 55 GB/s), and what all links together
take from the memory of a server (measured: two, three and four of 55 GB/s carry 110, 150 and 169)."""
_BLOCK_S, _RECORDED_BLOCK_S = 0.8e-3, 0.05e-3
"""Running a block's code in Python, and within a CUDA graph."""
_BLOCK_ABREAST_S, _NF4_BLOCK_ABREAST_S = 1.1e-3, 3.2e-3
"""The same where each block is on another device than the last; products that unpack NF4 are two kernels each (of a 70B
on four H200s, in prompts and in steps; the other is not measured)."""


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
    is_step: bool = False
    """Whether it is a step of decoding, which can be recorded."""


def reading_duration(facts: Facts, placement: Placement, batch: Batch) -> Duration:
    """Seconds to read the workload of ``facts`` in such batches."""
    work = facts.workload
    prefix, own = work.prefix_tokens, work.prompt_tokens
    passes = math.ceil(prefix / batch.pass_tokens)
    prefix_s = (
        passes * _pass_s(facts, placement, _Pass(prefix // passes, prefix / 2, 0, 0)) if prefix else 0.0
    )
    prefill_s = decode_s = 0.0
    stages, abreast = facts.passes_through(placement)
    for examples, times in _batches(work.examples, batch.size):
        most = pass_tokens(examples * own, batch.pass_tokens, stages=stages, abreast=abreast, longest=own)
        passes = min(examples, math.ceil(examples * own / most))
        rows = examples / passes
        prefill = _Pass(round(rows * own), prefix + own / 2, prefix, round(rows))
        prefill_s += times * _passes_s(facts, placement, prefill, passes)
        if work.generates:
            lanes = lanes_of(facts, placement, examples)
            decode_s += times * (work.new_tokens - 1) * _step_s(facts, placement, examples, lanes)
    return Duration(prefix_s, prefill_s, decode_s)


def lanes_of(facts: Facts, placement: Placement, examples: int) -> int:
    """Groups that the rows of so many examples are best decoded in.

    Where GPUs have the blocks in turn, more groups keep more of them at work, and each reads all weights again.
    """
    if placement.abreast == 1:
        return placement.lanes
    return min(
        (1, 2, placement.abreast), key=lambda lanes: (_step_s(facts, placement, examples, lanes), lanes)
    )


def _passes_s(facts: Facts, placement: Placement, forward: _Pass, passes: int) -> float:
    """Seconds of some passes: abreast; the first through all stages, the others behind the slowest; or each alone."""
    stages, abreast = facts.passes_through(placement)
    if abreast > 1:
        return _abreast_s(facts, placement, forward, passes)
    if stages == 1:
        return passes * _pass_s(facts, placement, forward)
    spent = _stages_s(facts, placement, forward)
    return sum(spent) + (passes - 1) * max(spent)


def _abreast_s(facts: Facts, placement: Placement, forward: _Pass, passes: int) -> float:
    """Seconds of some passes that go side by side.

    A streamed block is copied once for all of them, and the code of one runs at a time, ahead of the devices.
    """
    is_recorded = _is_recorded(facts, placement, forward)
    block_s = _NF4_BLOCK_ABREAST_S if facts.method is QuantizationMethod.nf4 else _BLOCK_ABREAST_S
    code_s = len(placement.blocks) * (_RECORDED_BLOCK_S if is_recorded else block_s)
    computing_s = _computing_s(facts, placement, forward, code_s=0.0).values()
    copies_s = _slowest_copies_s(facts, placement)
    fronts, rest = divmod(passes, placement.abreast)
    sizes = [placement.abreast] * fronts + [rest] * (rest > 0)
    return sum(max(sum(computing_s), size * max(computing_s), size * code_s, copies_s) for size in sizes)


def _step_s(facts: Facts, placement: Placement, examples: int, lanes: int) -> float:
    """Seconds in which each lane takes a step: alone, one behind the other through the slowest stage, or abreast."""
    work = facts.workload
    together = math.ceil(examples / min(lanes, examples))
    answers, grown = together * work.generations, work.new_tokens / 2
    own, prefix = work.prompt_tokens, work.prefix_tokens
    kept = prefix + together * own + round(answers * grown)
    lane = _Pass(answers, prefix + own + grown, kept, answers, is_step=True)
    if placement.abreast > 1:
        return _abreast_s(facts, placement, lane, lanes)
    if placement.stages == 1:
        return _pass_s(facts, placement, lane)
    stages = _stages_s(facts, placement, lane)
    return max(sum(stages), lanes * max(stages))


def _batches(examples: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Sizes of the batches and how often each occurs."""
    whole, rest = divmod(examples, batch_size)
    if whole:
        yield batch_size, whole
    if rest:
        yield rest, 1


def _pass_s(facts: Facts, placement: Placement, forward: _Pass) -> float:
    """Seconds of one pass alone: the computing, or the slowest GPU's copies if they take longer."""
    return max(sum(_computing_s(facts, placement, forward).values()), _slowest_copies_s(facts, placement))


def _stages_s(facts: Facts, placement: Placement, forward: _Pass) -> list[float]:
    """Seconds of each stage of a pass: its computing, or its copies if they take longer."""
    copies_s = _copies_s(facts, placement)
    computing_s = _computing_s(facts, placement, forward)
    return [max(spent, copies_s.get(device, 0.0)) for device, spent in computing_s.items()]


def _slowest_copies_s(facts: Facts, placement: Placement) -> float:
    """Seconds of the copies of a pass: of the GPU that waits longest, or of what they take from memory together."""
    together = facts.weights.of_all(placement.streamed)
    of_gpus = _copies_s(facts, placement).values()
    return max(*of_gpus, together / (_LINKS_GB_PER_S * BYTES_PER_GB)) if placement.streamed else 0.0


def _copies_s(facts: Facts, placement: Placement) -> dict[Device, float]:
    """Seconds of the copies that each GPU waits for in a pass."""
    return {
        gpu: facts.weights.of_all(blocks)
        / (facts.hardware.gpus[gpu].link_gb_per_s * BYTES_PER_GB * _LINK_SHARE)
        for gpu, blocks in placement.streams.items()
    }


def _is_recorded(facts: Facts, placement: Placement, forward: _Pass) -> bool:
    """Whether it runs as CUDA graphs."""
    return forward.is_step and not placement.streamed and _is_fused(facts, placement)


def _is_fused(facts: Facts, placement: Placement) -> bool:
    """Whether every device that computes blocks has the engine's kernels."""
    return all(_has_kernels(_rates(device, facts.hardware), facts.dtype) for device in placement.counts)


def _computing_s(
    facts: Facts, placement: Placement, forward: _Pass, code_s: float | None = None
) -> dict[Device, float]:
    """Seconds that each device computes in one pass, those in which a block's code runs included; None: the usual."""
    architecture, dtype = facts.architecture, facts.dtype
    if code_s is None:
        code_s = _RECORDED_BLOCK_S if _is_recorded(facts, placement, forward) else _BLOCK_S
    is_fused = _is_fused(facts, placement)
    spent = {
        device: blocks * _block_s(facts, forward, code_s, device, is_fused=is_fused)
        for device, blocks in placement.counts.items()
    }
    if placement.head is not None and forward.logits:
        head = _Work(
            forward.logits * head_flops_per_token(architecture),
            architecture.vocab * architecture.hidden * DTYPE_BYTES[dtype],
        )
        head_s = head.seconds(_rates(placement.head, facts.hardware))
        spent[placement.head] = spent.get(placement.head, 0.0) + head_s
    return spent


def _block_s(facts: Facts, forward: _Pass, code_s: float, device: Device, *, is_fused: bool) -> float:
    """Seconds of a block of a pass on a device; the same for every placement, of which there are hundreds."""
    asked, known = (forward, code_s, device, is_fused), facts.block_seconds
    if asked not in known:
        architecture, dtype = facts.architecture, facts.dtype
        block = _Work(
            forward.tokens * block_flops_per_token(architecture, forward.attended),
            *_weight_traffic(facts, forward.tokens),
            cache_bytes=forward.cached * kv_bytes_per_token(architecture, dtype, blocks=1),
            launch_s=code_s,
            flop_share=_FUSED_FLOP_SHARE if is_fused else _FLOP_SHARE,
        )
        known[asked] = block.seconds(_rates(device, facts.hardware))
    return known[asked]


@dataclass(frozen=True, slots=True)
class _Work:
    """What a part of a model does in a pass."""

    flops: float
    weight_bytes: float
    """Read while they are multiplied."""
    unpacked_bytes: float = 0.0
    """Moved before, where weights are unpacked."""
    cache_bytes: float = 0.0
    launch_s: float = _RECORDED_BLOCK_S
    flop_share: float = _FLOP_SHARE

    def seconds(self, device: Gpu | Cpu) -> float:
        """On a device: products as fast as they or their weights come, then the cache."""
        bandwidth = device.bandwidth_gb_per_s * BYTES_PER_GB * _BANDWIDTH_SHARE
        products_s = max(self.flops / (device.tflops * 1e12 * self.flop_share), self.weight_bytes / bandwidth)
        return self.launch_s + products_s + (self.unpacked_bytes + self.cache_bytes) / bandwidth


def _has_kernels(device: Gpu | Cpu, dtype: Dtype) -> bool:
    """Whether the engine's own kernels take it (`inference.attention.has_kernels`), so that steps can be recorded."""
    return isinstance(device, Gpu) and not device.lacks_bfloat16 and DTYPE_BYTES[dtype] == 2


def _weight_traffic(facts: Facts, tokens: int) -> tuple[float, float]:
    """Bytes of weights one block moves through device memory in a pass: in its products, and before them.

    A mixture reads the experts that some token chose. NF4 with more than one token writes the unpacked weights first.
    """
    architecture = facts.architecture
    share = 1 - (1 - architecture.experts_per_token / architecture.experts) ** tokens
    stored = float(facts.weights.usual_block) * share
    if facts.method is not QuantizationMethod.nf4 or tokens == 1:
        return stored, 0.0
    unpacked = DTYPE_BYTES[facts.dtype] * facts.parameters.usual_block * share
    return unpacked, stored + unpacked


def _rates(device: Device, hardware: Hardware) -> Gpu | Cpu:
    return hardware.gpus[device] if isinstance(device, int) else hardware.cpu
