"""Which part of a decoder lies on which device, and which blocks stream to a GPU when they are needed.

Knows bytes and budgets. Blocks are placed whole. A block that does not fit waits in CPU memory and is copied to its
GPU ahead of use, into one of two buffers of the size of a block; its keys and values stay on the GPU. The embedding
is a lookup: where a GPU is too small it waits in CPU memory at next to no cost.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from heapq import heapify, heapreplace
from typing import Any, Literal

from probegrid.planning.architecture import Parts
from probegrid.schema import PlacementStrategy

Device = int | Literal["cpu"]
"""Index of a GPU, or CPU memory."""

Fill = Callable[[Sequence[int], Sequence[int], Sequence[int]], list[int] | None]
"""From each GPU's room and each block's cost to the blocks of each GPU; None: too many."""

BUFFERS = 2
"""Blocks a streaming GPU holds at once: the one computed with and the one under way."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What has to find room, in bytes."""

    weights: Parts
    blocks: int
    """Blocks to load, from the first."""
    with_head: bool
    """Whether the final norm and the head are loaded."""
    tied: bool
    """Whether the head is the embedding, and so must lie with it."""
    kv_block: int = 0
    """Keys and values of one block, for all rows of a batch and the shared prefix."""
    activations: int = 0
    """Working memory of every device that computes."""
    logits: int = 0
    """Working memory of the head."""
    crossing: int = 0
    """What each pass beside others holds on every device while it goes from one to the next."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one device holds, in bytes."""

    weights: int = 0
    buffers: int = 0
    kv: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All of it, at the peak."""
        return self.weights + self.buffers + self.kv + self.activations


@dataclass(frozen=True)
class Placement:
    """Where each part lies."""

    embedding: Device
    blocks: tuple[Device, ...]
    """Device that computes each block, from the first."""
    streamed: tuple[int, ...]
    """Blocks, in order, that wait in CPU memory and are copied to their GPU for each pass."""
    head: Device | None
    """None where no head is loaded."""

    @classmethod
    def on_the_cpu(cls, blocks: int, *, with_head: bool) -> Placement:
        """Everything in CPU memory."""
        cpu: Device = "cpu"
        return cls(cpu, (cpu,) * blocks, (), cpu if with_head else None)

    @property
    def entrance(self) -> Device:
        """The device of the first block, where what stands beside the embedding lies."""
        return self.blocks[0] if self.blocks else self.embedding

    @property
    def final_norm(self) -> Device:
        """The device of the last block; the module is there even where its weight is not used."""
        return self.blocks[-1] if self.blocks else self.embedding

    @cached_property
    def gpus(self) -> tuple[int, ...]:
        """Indices of the GPUs that are used."""
        devices = {self.embedding, self.head, *self.blocks}
        return tuple(sorted(device for device in devices if isinstance(device, int)))

    @cached_property
    def stages(self) -> int:
        """GPUs through which passes flow one behind another: each computes one stretch of blocks, and all of them do.

        1 where blocks of several devices alternate, or the CPU computes some.
        """
        changes = sum(a != b for a, b in itertools.pairwise(self.blocks))
        return changes + 1 if "cpu" not in self.blocks and changes + 1 == len(set(self.blocks)) else 1

    @cached_property
    def abreast(self) -> int:
        """Passes that take each block side by side, so that all GPUs compute: one a GPU, where these have it in turn.

        1 where blocks lie in any other order, or passes flow through stages.
        """
        gpus = len(set(self.blocks))
        in_turn = all(device == self.blocks[block % gpus] for block, device in enumerate(self.blocks))
        return gpus if in_turn and self.blocks and "cpu" not in self.blocks and self.stages == 1 else 1

    @property
    def lanes(self) -> int:
        """Groups of rows that take their steps in turn, a GPU each; 1 where each step brings blocks."""
        return 1 if self.streamed else self.stages

    def first(self, blocks: int) -> Placement:
        """The placement of the embedding and the first ``blocks`` blocks, without a head."""
        streamed = tuple(block for block in self.streamed if block < blocks)
        return Placement(self.embedding, self.blocks[:blocks], streamed, None)

    @cached_property
    def counts(self) -> Mapping[Device, int]:
        """Blocks that each device computes."""
        return Counter(self.blocks)

    @cached_property
    def _held(self) -> Mapping[Device, tuple[int, ...]]:
        """The blocks whose weights lie on each device."""
        streamed = set(self.streamed)
        held: dict[Device, list[int]] = {}
        for block, device in enumerate(self.blocks):
            held.setdefault("cpu" if block in streamed else device, []).append(block)
        return {device: tuple(blocks) for device, blocks in held.items()}

    @cached_property
    def streams(self) -> Mapping[int, tuple[int, ...]]:
        """The blocks each GPU is streamed, in the order it computes them."""
        streams: dict[int, list[int]] = {}
        for block in self.streamed:
            gpu = self.blocks[block]
            if isinstance(gpu, int):
                streams.setdefault(gpu, []).append(block)
        return {gpu: tuple(blocks) for gpu, blocks in streams.items()}

    def loads(self, demand: Demand) -> dict[Device, Load]:
        """What each device holds under ``demand``; devices that hold nothing are left out."""
        weights: Counter[Device] = Counter()
        kv: Counter[Device] = Counter()
        weights[self.embedding] += demand.weights.embedding
        if self.head is not None:
            weights[self.head] += demand.weights.head
            weights[self.final_norm] += demand.weights.final_norm
        for device, blocks in self._held.items():
            weights[device] += demand.weights.of_all(blocks)
        for device, count in self.counts.items():
            kv[device] += count * demand.kv_block
        streaming, computing = self.streams, self._computing()
        crossing = demand.crossing * self.abreast if self.abreast > 1 else 0
        buffers = {gpu: BUFFERS * demand.weights.largest_of(blocks) for gpu, blocks in streaming.items()}
        return {
            device: Load(
                weights=weights[device],
                buffers=buffers.get(device, 0) if isinstance(device, int) else 0,
                kv=kv[device],
                activations=(demand.activations + crossing if device in computing else 0)
                + (demand.logits if device == self.head else 0),
            )
            for device in sorted({*weights, *computing}, key=lambda device: (device == "cpu", str(device)))
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "blocks": list(self.blocks), "streamed": list(self.streamed)}

    def _computing(self) -> set[Device]:
        devices: set[Device] = {*self.blocks, self.final_norm}
        return devices if self.head is None else devices | {self.head}


def placements(
    demand: Demand, gpu_budgets: Sequence[int], strategy: PlacementStrategy, *, streams: bool = True
) -> Iterator[Placement]:
    """Every sensible placement that keeps to the budgets, none if there is none.

    Each uses some first GPUs of the list. Blocks stream only where no number of GPUs holds them all, and then
    on as many GPUs as possible.

    Args:
        demand: what has to find room.
        gpu_budgets: bytes each GPU may hold, overhead already taken off.
        strategy: ``cpu`` or no GPU at all: everything on the CPU. ``single``: the first GPU, nothing streams.
            ``balanced``: equal bytes on all GPUs, streaming what does not fit. ``auto``: the first GPUs, filled in
            order, evenly, or for equal steps of decoding, streaming what does not fit.
        streams: whether blocks may wait in CPU memory.
    """
    if strategy is PlacementStrategy.cpu or not gpu_budgets:
        yield Placement.on_the_cpu(demand.blocks, with_head=demand.with_head)
        return
    if strategy is PlacementStrategy.single:
        yield from _resident(demand, gpu_budgets[:1], _fill_in_order, embeddings=(0,))
        return
    balanced = strategy is PlacementStrategy.balanced
    embeddings: tuple[Device, ...] = (0,) if demand.tied and demand.with_head else (0, "cpu")
    counts = range(len(gpu_budgets) if balanced else 1, len(gpu_budgets) + 1)
    resident = [
        placement
        for count in counts
        for fill in ((_fill_evenly,) if balanced else _FILLS[: 1 if count == 1 else None])
        for placement in _resident(demand, gpu_budgets[:count], fill, embeddings)
    ]
    if resident or not streams:
        yield from resident
        return
    for count in reversed(counts):
        streaming = list(_streaming(demand, gpu_budgets[:count], embeddings))
        if streaming:
            yield from streaming
            return


def _resident(
    demand: Demand, budgets: Sequence[int], fill: Fill, embeddings: Sequence[Device]
) -> Iterator[Placement]:
    """Every block on these GPUs, with the embedding on the first of ``embeddings`` that lets them fit."""
    for embedding in embeddings:
        room, head = _room(demand, budgets, embedding), _head_device(demand, embedding, len(budgets))
        weights = demand.weights.each[: demand.blocks] or [demand.weights.block] * demand.blocks
        costs = [held + demand.kv_block for held in weights]
        if sum(costs) > sum(room):
            continue
        read = [demand.weights.head if gpu == head else 0 for gpu in range(len(budgets))]
        counts = fill(room, costs, read)
        if counts is not None:
            blocks = tuple(gpu for gpu, count in enumerate(counts) for _ in range(count))
            yield Placement(embedding, blocks, (), head)
            return


def _streaming(demand: Demand, budgets: Sequence[int], embeddings: Sequence[Device]) -> Iterator[Placement]:
    """The fewest streamed blocks, for each number of streaming GPUs and place of the embedding; and all in turn."""
    crossing = demand.crossing * len(budgets) if len(budgets) > 1 else 0
    for embedding in embeddings:
        room = [free - crossing for free in _room(demand, budgets, embedding)]
        roomiest = sorted(range(len(room)), key=lambda gpu: (-room[gpu], gpu))
        for streaming_gpus in range(1, len(room) + 1):
            gpus = sorted(roomiest[:streaming_gpus])
            left = [
                free - (BUFFERS * demand.weights.block if gpu in gpus else 0) for gpu, free in enumerate(room)
            ]
            split = _fewest_streamed(demand, left, gpus)
            if split is not None:
                yield _interleave(demand, embedding, gpus, *split, len(budgets))
        in_turn = _in_turn(demand, embedding, room) if 1 < len(room) <= demand.blocks else None
        if in_turn is not None:
            yield in_turn


def _head_device(demand: Demand, embedding: Device, gpus: int) -> Device | None:
    if not demand.with_head:
        return None
    return embedding if demand.tied else gpus - 1


def _room(demand: Demand, budgets: Sequence[int], embedding: Device) -> list[int]:
    """Bytes left on each GPU for blocks; negative where even the rest does not fit."""
    # Whichever GPU computes the last block holds the final norm: every GPU keeps room for it.
    final_norm = demand.weights.final_norm if demand.with_head else 0
    room = [budget - demand.activations - final_norm for budget in budgets]
    if embedding != "cpu":
        room[embedding] -= demand.weights.embedding
    head = _head_device(demand, embedding, len(budgets))
    if isinstance(head, int):
        room[head] -= demand.weights.head + demand.logits
    return room


def _fill_in_order(room: Sequence[int], costs: Sequence[int], _read: Sequence[int]) -> list[int] | None:
    """Blocks of each GPU, one filled before the next; None if they do not fit or some room is negative."""
    if min(room) < 0:
        return None
    counts = [0] * len(room)
    gpu, free = 0, room[0]
    for cost in costs:
        while cost > free:
            gpu += 1
            if gpu == len(room):
                return None
            free = room[gpu]
        free -= cost
        counts[gpu] += 1
    return counts


def _fill_evenly(room: Sequence[int], costs: Sequence[int], _read: Sequence[int]) -> list[int] | None:
    """Blocks of each GPU, the next one always where most room is left; None as in ``_fill_in_order``."""
    return _dealt(room, costs, room)


def _fill_for_steps(room: Sequence[int], costs: Sequence[int], read: Sequence[int]) -> list[int] | None:
    """Blocks of each GPU, the next one always where a step reads least so far; None as in ``_fill_in_order``.

    A step of decoding reads the head too, which is two or three blocks of a small model, and not the embedding.
    """
    return _dealt(room, costs, [-each for each in read])


_FILLS: tuple[Fill, ...] = (_fill_in_order, _fill_evenly, _fill_for_steps)


def _dealt(room: Sequence[int], costs: Sequence[int], left: Sequence[int]) -> list[int] | None:
    """Blocks of each GPU, the next one always where most is ``left``; None if they have no room."""
    if min(room) < 0:
        return None
    usual = sum(costs) / len(costs) if costs else 0
    counts = [0] * len(room)
    by_room: list[tuple[float, int]] = [(-free, gpu) for gpu, free in enumerate(left)]
    heapify(by_room)
    for _ in costs:
        gpu = by_room[0][1]
        counts[gpu] += 1
        heapreplace(by_room, (counts[gpu] * usual - left[gpu], gpu))
    ends = list(itertools.accumulate(counts, initial=0))
    held = [sum(costs[begin:end]) for begin, end in itertools.pairwise(ends)]
    return counts if all(cost <= free for cost, free in zip(held, room, strict=True)) else None


def _fewest_streamed(
    demand: Demand, room: Sequence[int], streaming: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """Blocks resident on and streamed to each GPU, the fewest streamed; None if there is no room for that.

    The streamed blocks are dealt in turn to the GPUs of ``streaming``. One more streamed block frees at most
    itself, so the number of blocks that find a place never falls as more stream: a bisection finds the
    fewest.
    """
    if min(room) < 0 or demand.blocks == 0:
        return None
    cost = demand.weights.block + demand.kv_block

    def dealt(streamed: int) -> list[int]:
        turns = [0] * len(room)
        for position, gpu in enumerate(streaming):
            turns[gpu] = (streamed - position + len(streaming) - 1) // len(streaming)
        return turns

    def resident(streamed: int) -> list[int]:
        return [
            (free - turns * demand.kv_block) // cost
            for free, turns in zip(room, dealt(streamed), strict=True)
        ]

    streamed = 1 + bisect_left(
        range(1, demand.blocks), demand.blocks, key=lambda count: sum(resident(count)) + count
    )
    counts = resident(streamed)
    if min(counts) < 0 or sum(counts) + streamed < demand.blocks:
        return None
    for gpu in range(len(counts)):
        counts[gpu] = min(counts[gpu], demand.blocks - streamed - sum(counts[:gpu]))
    return counts, dealt(streamed)


def _in_turn(demand: Demand, embedding: Device, room: Sequence[int]) -> Placement | None:
    """Block after block on the next GPU, each streaming what it cannot hold, over the depth; None: no room.

    All GPUs compute while passes go abreast, and in a step of decoding all links copy.
    """
    cost, gpus = demand.weights.block, len(room)
    streamed: list[int] = []
    for gpu, free in enumerate(room):
        mine = range(gpu, demand.blocks, gpus)
        free -= len(mine) * demand.kv_block
        resident = len(mine) if len(mine) * cost <= free else (free - BUFFERS * cost) // cost
        if resident < 0:
            return None
        brought = len(mine) - resident
        streamed += [mine[(2 * turn + 1) * len(mine) // (2 * brought)] for turn in range(brought)]
    blocks = tuple(block % gpus for block in range(demand.blocks))
    head = _head_device(demand, embedding, gpus)
    return Placement(embedding, blocks, tuple(sorted(streamed)), head)


def _interleave(
    demand: Demand,
    embedding: Device,
    streaming: Sequence[int],
    resident: list[int],
    streamed: list[int],
    gpus: int,
) -> Placement:
    """Spread the streamed blocks over the depth, so that their copies run while resident blocks compute."""
    count = sum(streamed)
    positions = [(2 * turn + 1) * demand.blocks // (2 * count) for turn in range(count)]
    blocks: list[Device] = [gpu for gpu, held in enumerate(resident) for _ in range(held)]
    for turn, position in enumerate(positions):
        blocks.insert(position, streaming[turn % len(streaming)])
    return Placement(embedding, tuple(blocks), tuple(positions), _head_device(demand, embedding, gpus))
