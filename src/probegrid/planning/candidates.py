"""The pairs of placement and batch that could run a cell, and which of them to take.

More rows in a batch and more tokens in a pass pay for a streamed block, and fewer blocks on a GPU make room for
them: every sensible pair is estimated. Of those within 5% of the fastest, the one with the fewest streamed blocks, then
the fewest GPUs, then the smallest batch is taken: it leaves most room for prompts that turn out longer than
estimated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from probegrid.planning.architecture import block_flops_per_token
from probegrid.planning.placement import Device, Load, Placement, placements
from probegrid.planning.requirements import Facts
from probegrid.planning.timing import Duration, reading_duration
from probegrid.planning.workload import PASS_TOKENS, QUESTIONS, ROWS, Batch, longest_pass
from probegrid.schema import PlacementStrategy

_SHORTER_PASSES = (4096, 3072, 2048, 1024)
"""Tokens of a pass that are tried on GPUs too: less working memory leaves room for blocks and rows. A pass that needs
fewer has room for more: other readings of the cell (p(true)) have longer prompts."""
_SLACK = 1.05
"""How much slower than the fastest an option may be to save streaming, GPUs and memory."""


@dataclass(frozen=True, slots=True)
class Option:
    """A placement and a batch that keep to every budget."""

    batch: Batch
    placement: Placement
    loads: dict[Device, Load]
    """What each device holds at the peak."""
    duration: Duration
    """Seconds of the reading."""

    @property
    def cpu_bytes(self) -> int:
        """Held in CPU memory."""
        return self.loads["cpu"].total if "cpu" in self.loads else 0

    @property
    def gpu_bytes(self) -> int:
        """Held on all GPUs together."""
        return sum(load.total for device, load in self.loads.items() if device != "cpu")


def options(facts: Facts, given: Placement | None = None) -> Iterator[Option]:
    """Every sensible placement and batch that keep to the budgets, none if there are none.

    Args:
        facts: what is placed and read.
        given: where the model lies already, or will for all cells of a pack; it may be deeper than this reading.
            None: every placement is tried.
    """
    for batch in batches(facts):
        for placement in _placements(facts, batch) if given is None else (given,):
            read = placement if facts.with_head else placement.first(facts.blocks)
            loads = placement.loads(facts.demand(batch, *facts.passes_through(read)))
            if _keeps_to_budgets(loads, facts):
                yield Option(batch, placement, loads, reading_duration(facts, read, batch))


def _placements(facts: Facts, batch: Batch) -> Iterator[Placement]:
    """Every sensible placement; of several GPUs also those that have room only because passes are shorter on them."""
    gpus = len(facts.gpu_budgets)
    demands = dict.fromkeys(
        facts.demand(batch, *shape) for shape in ((1, 1), (gpus, 1), (1, gpus))[: 3 if gpus > 1 else 1]
    )
    return iter(
        dict.fromkeys(
            placement
            for demand in demands
            for placement in placements(demand, facts.gpu_budgets, facts.strategy, streams=facts.streams)
        )
    )


def _keeps_to_budgets(loads: Mapping[Device, Load], facts: Facts) -> bool:
    budgets = facts.gpu_budgets
    return all(
        load.total <= (facts.cpu_budget if device == "cpu" else budgets[device])
        for device, load in loads.items()
    )


def batches(facts: Facts) -> list[Batch]:
    """Every batch that is tried, the least demanding first: of each size, in passes of each length.

    Activations are read a batch a pass; the prompts of a batch in one pass or several.
    """
    work = facts.workload
    device, longest = _device_type(facts), _longest_pass(facts)
    lengths = {longest, PASS_TOKENS[device], *(_SHORTER_PASSES if device == "cuda" else ())}
    found: set[tuple[int, int]] = set()
    for size in _batch_sizes(facts):
        tokens = max(size * work.longest_tokens, work.prefix_tokens)
        if not work.generates:
            found.add((size, min(tokens, longest)))
            continue
        enough = min((length for length in lengths if length >= tokens), default=longest)
        found |= {(size, length) for length in lengths if length <= enough}
    return [Batch(size, tokens) for size, tokens in sorted(found)]


def _batch_sizes(facts: Facts) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to all examples; the one size asked for, if one was."""
    workload, device = facts.workload, _device_type(facts)
    if workload.batch_size is not None:
        return [min(workload.batch_size, workload.examples)]
    if workload.generates:
        most = min(workload.examples, QUESTIONS, max(1, ROWS[device] // workload.generations))
    else:  # a batch is a pass
        most = min(workload.examples, max(1, _longest_pass(facts) // workload.longest_tokens))
    powers = [2**exponent for exponent in range(most.bit_length())]
    between = [power + power // 2 for power in powers[1:] if power + power // 2 < most]
    return sorted({*powers, *between, most})


def _longest_pass(facts: Facts) -> int:
    return longest_pass(_device_type(facts), block_flops_per_token(facts.architecture, 0))


def _device_type(facts: Facts) -> str:
    """What computes: ``cuda`` or ``cpu``."""
    return "cuda" if facts.gpu_budgets and facts.strategy is not PlacementStrategy.cpu else "cpu"


def best(candidates: Sequence[Option], gpus: int) -> Option:
    """The option to take, by the rule at the head of this module.

    Args:
        candidates: at least one.
        gpus: that are there: what an option leaves unused may hold copies of the model, which read along.
    """

    def seconds(option: Option) -> float:
        used = len(option.placement.gpus)
        copies = 1 if option.placement.streamed or not used else max(1, gpus // used)
        return option.duration.total_s / copies

    fastest_s = min(map(seconds, candidates))
    return min(
        (option for option in candidates if seconds(option) <= _SLACK * fastest_s),
        key=lambda option: (
            len(option.placement.streamed),
            len(option.placement.gpus),
            option.batch.size,
            option.duration.total_s,
        ),
    )
