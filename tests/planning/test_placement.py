"""Whatever the model and the budgets: every module lies somewhere once, and no budget is exceeded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probegrid.planning.architecture import Parts
from probegrid.planning.placement import Demand, Placement, placements
from probegrid.schema import PlacementStrategy

SPREAD = (PlacementStrategy.auto, PlacementStrategy.balanced)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    tied = draw(st.booleans())
    embedding = draw(st.integers(1, 300))
    with_head = draw(st.booleans())
    return Demand(
        weights=Parts(
            embedding=embedding,
            block=draw(st.integers(1, 100)),
            final_norm=draw(st.integers(0, 3)),
            head=0 if tied else embedding,
        ),
        blocks=draw(st.integers(0, 30)),
        with_head=with_head,
        tied=tied,
        kv_block=draw(st.integers(0, 60)),
        activations=draw(st.integers(0, 100)),
        logits=draw(st.integers(0, 50)) if with_head else 0,
    )


budgets = st.lists(st.integers(-10, 1500), min_size=0, max_size=4)
strategies = st.sampled_from(PlacementStrategy)


@given(demands(), budgets, strategies)
def test_budgets_are_never_exceeded(
    demand: Demand, gpu_budgets: list[int], strategy: PlacementStrategy
) -> None:
    for placement in placements(demand, gpu_budgets, strategy):
        for device, load in placement.loads(demand).items():
            if device != "cpu":
                assert load.total <= gpu_budgets[device]


@given(demands(), budgets, strategies)
def test_every_byte_lies_somewhere_once(
    demand: Demand, gpu_budgets: list[int], strategy: PlacementStrategy
) -> None:
    for placement in placements(demand, gpu_budgets, strategy):
        loads = placement.loads(demand).values()
        total = demand.weights.total(demand.blocks, with_head=demand.with_head)
        assert sum(load.weights for load in loads) == total
        assert sum(load.kv for load in loads) == demand.blocks * demand.kv_block


@given(demands(), budgets, strategies)
def test_every_part_has_a_device(demand: Demand, gpu_budgets: list[int], strategy: PlacementStrategy) -> None:
    for placement in placements(demand, gpu_budgets, strategy):
        assert len(placement.blocks) == demand.blocks
        assert {placement.embedding, *placement.blocks} <= {"cpu", *range(len(gpu_budgets))}
        assert (placement.head is not None) is demand.with_head
        if demand.with_head and demand.tied:
            assert placement.head == placement.embedding


@given(demands(), budgets, st.sampled_from(SPREAD))
def test_streamed_blocks_wait_on_the_cpu_and_compute_on_a_gpu(
    demand: Demand, gpu_budgets: list[int], strategy: PlacementStrategy
) -> None:
    for placement in placements(demand, gpu_budgets, strategy):
        if not gpu_budgets:
            continue
        assert all(device != "cpu" for device in placement.blocks)
        streams = placement.streams
        assert sorted(block for blocks in streams.values() for block in blocks) == list(placement.streamed)
        assert set(streams) <= set(placement.gpus)


@given(demands(), budgets.filter(bool), st.sampled_from(SPREAD), st.integers(0, 500))
def test_more_memory_never_streams_more(
    demand: Demand, gpu_budgets: list[int], strategy: PlacementStrategy, more: int
) -> None:
    def fewest(gpu_budgets: list[int]) -> float:
        found = placements(demand, gpu_budgets, strategy)
        return min((len(placement.streamed) for placement in found), default=float("inf"))

    assert fewest([budget + more for budget in gpu_budgets]) <= fewest(gpu_budgets)


@given(demands(), budgets.filter(bool))
def test_single_is_one_gpu_and_streams_nothing(demand: Demand, gpu_budgets: list[int]) -> None:
    for placement in placements(demand, gpu_budgets, PlacementStrategy.single):
        assert {placement.embedding, *placement.blocks, placement.final_norm} == {0}


@given(demands())
def test_without_gpus_everything_is_on_the_cpu(demand: Demand) -> None:
    for strategy, gpu_budgets in ((PlacementStrategy.auto, []), (PlacementStrategy.cpu, [10**6])):
        (placement,) = placements(demand, gpu_budgets, strategy)
        assert {placement.embedding, *placement.blocks, placement.final_norm} == {"cpu"}
        assert placement.gpus == ()


def demand_of(blocks: int, **changes: Any) -> Demand:
    values: dict[str, Any] = {
        "weights": Parts(5, 10, 0, 5),
        "blocks": blocks,
        "with_head": True,
        "tied": False,
    }
    return Demand(**(values | changes))


def test_auto_fills_gpus_in_order() -> None:
    placement = next(placements(demand_of(7), [45, 60], PlacementStrategy.auto))
    assert placement == Placement(0, (0,) * 4 + (1,) * 3, (), 1)


def test_balanced_shares_the_bytes() -> None:
    placement = next(placements(demand_of(8), [200, 200], PlacementStrategy.balanced))
    assert placement.blocks == (0,) * 4 + (1,) * 4


def test_embedding_waits_on_the_cpu_before_a_block_has_to_stream() -> None:
    placement = next(placements(demand_of(4), [47], PlacementStrategy.auto))
    assert placement.embedding == "cpu"
    assert placement.streamed == ()


def test_streamed_blocks_are_spread_over_the_depth_and_the_gpus() -> None:
    found = placements(demand_of(20), [75, 75], PlacementStrategy.auto)
    both = next(placement for placement in found if len(placement.streams) == 2)
    assert both.streamed == tuple(range(1, 20, 2))
    assert [both.blocks[block] for block in both.streamed[:4]] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("blocks", "stages", "abreast"),
    [
        ((0, 1, 2, 0, 1, 2, 0), 1, 3),
        ((1, 0, 1, 0), 1, 2),
        ((0, 1, 2, 0, 2, 1), 1, 1),  # two of three passes would be on one GPU
        ((0, 1, 0, 2, 0, 1), 1, 1),
        ((0, 0, 1, 1), 2, 1),
        ((0, 1), 2, 1),
        ((0, "cpu", 0, "cpu"), 1, 1),
        ((0, 0), 1, 1),
    ],
)
def test_passes_go_abreast_where_blocks_are_dealt_in_turn(
    blocks: tuple[Any, ...], stages: int, abreast: int
) -> None:
    placement = Placement(0, blocks, (), 0)
    assert (placement.stages, placement.abreast) == (stages, abreast)
