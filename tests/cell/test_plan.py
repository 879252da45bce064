"""The plan of a cell, and the one placement of a pack."""

from __future__ import annotations

import pytest

from probegrid.cell.plan import PackPlan, plan_cell, plan_pack
from probegrid.compose import compose_cell
from probegrid.planning.placement import Placement


def cards(memory_gb: float) -> tuple[str, ...]:
    return (
        "device_map.gpus=4",
        f"device_map.gpu_memory_gb={memory_gb}",
        f"device_map.overhead_gb={memory_gb / 20}",
    )


def placement_of(pack: PackPlan | None) -> Placement:
    assert pack is not None
    return pack.placement


def test_one_placement_holds_every_reading_of_a_pack() -> None:
    """Four cards so small that answers of many shots and activations of all layers would be placed differently."""
    overrides = [
        ("dataset=facts", "prompt.num_few_shot=40", "decoding.max_new_tokens=200", "decoding.batch_size='8'"),
        ("dataset=facts", "prompt.num_few_shot=0", "decoding.batch_size='1'", "decoding.max_new_tokens=4"),
        ("dataset=facts_statements", "probe=logistic", "probe.layers=[2]"),
    ]
    cells = [compose_cell(["model=tiny", *cards(0.016), *each]) for each in overrides]
    alone = [plan_cell(cell) for cell in cells]
    assert len({plan.placement for plan in alone}) == 3
    pack = plan_pack(cells)
    shared = placement_of(pack)
    together = [plan_cell(cell, pack=pack) for cell in cells]
    assert {plan.placement for plan in together} == {shared}
    assert {plan.blocks for plan in together} == {6}
    assert {plan.weight_bytes for plan in together} == {alone[0].weight_bytes}
    for plan in together:
        for device, load in plan.loads.items():
            assert device == "cpu" or load.total <= 0.95 * 0.016e9
    assert together[2].kv_bytes_per_token == 0


def test_a_pack_of_activations_is_as_deep_as_its_deepest_cell() -> None:
    cells = [
        compose_cell(["model=tiny", "dataset=facts_statements", "probe=logistic", f"probe.layers=[{layer}]"])
        for layer in (1, 4, 2)
    ]
    shared = placement_of(plan_pack(cells))
    assert (len(shared.blocks), shared.head) == (4, None)


def test_cells_that_cannot_be_planned_say_so_themselves() -> None:
    missing = compose_cell(["model=custom", "model.path=/nowhere/at/all"])
    assert plan_pack([missing]) is None
    with pytest.raises(Exception, match="nowhere"):
        plan_cell(missing)


def test_a_placement_too_small_for_a_cell_is_left_aside() -> None:
    small = compose_cell(
        ["model=tiny", *cards(0.016), "decoding.batch_size='1'", "decoding.max_new_tokens=4"]
    )
    longer = ("decoding.batch_size='8'", "decoding.max_new_tokens=200", "prompt.num_few_shot=40")
    large = compose_cell(["model=tiny", *cards(0.016), *longer])
    pack = plan_pack([small])
    assert plan_cell(large, pack=pack).placement != placement_of(pack)
