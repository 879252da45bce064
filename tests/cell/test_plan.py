"""The plan of a cell, and the one placement of a pack."""

from __future__ import annotations

import pytest

from probegrid.cell.cell import Cell
from probegrid.cell.lookup import Lookup
from probegrid.cell.plan import PackPlan, plan_cell, plan_pack, plan_spec
from probegrid.cell.prepare import prepare
from probegrid.compose import compose_cell
from probegrid.errors import UserError
from probegrid.planning.placement import Placement
from probegrid.planning.plan import Plan


def prepared(*overrides: str) -> Cell:
    return prepare(compose_cell(overrides))


def planned(cell: Cell, pack: PackPlan | None = None) -> Plan:
    plan = plan_cell(cell, pack=pack)
    assert plan is not None
    return plan


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
    cells = [prepared("model=tiny", *cards(0.017), *each) for each in overrides]
    alone = [planned(cell) for cell in cells]
    assert len({plan.placement for plan in alone}) == 3
    pack = plan_pack(cells)
    shared = placement_of(pack)
    together = [planned(cell, pack) for cell in cells]
    assert {plan.placement for plan in together} == {shared}
    assert {plan.blocks for plan in together} == {6}
    assert {plan.weight_bytes for plan in together} == {alone[0].weight_bytes}
    for plan in together:
        for device, load in plan.loads.items():
            assert device == "cpu" or load.total <= 0.95 * 0.017e9
    assert together[2].kv_bytes_per_token == 0


def test_a_pack_of_activations_is_as_deep_as_its_deepest_cell() -> None:
    cells = [
        prepared("model=tiny", "dataset=facts_statements", "probe=logistic", f"probe.layers=[{layer}]")
        for layer in (1, 4, 2)
    ]
    shared = placement_of(plan_pack(cells))
    assert (len(shared.blocks), shared.head) == (4, None)


def test_one_cell_alone_needs_no_placement_of_a_pack() -> None:
    assert plan_pack([prepared("model=tiny")]) is None


def test_a_placement_too_small_for_a_cell_is_left_aside() -> None:
    small = [
        prepared(
            "model=tiny",
            *cards(0.016),
            *("decoding.batch_size='1'", "decoding.max_new_tokens=4", f"dataset.num_samples={number}"),
        )
        for number in (10, 20)
    ]
    longer = ("decoding.batch_size='8'", "decoding.max_new_tokens=200", "prompt.num_few_shot=40")
    large = prepared("model=tiny", *cards(0.016), *longer)
    pack = plan_pack(small)
    assert planned(large, pack).placement != placement_of(pack)


def test_a_cell_whose_files_are_not_at_hand_is_planned_by_its_facts() -> None:
    spec = compose_cell(["model=llama70b", "dataset=squad", "quantization=nf4", "device_map=4x11gb"])
    plan, notes = plan_spec(spec, Lookup(fetch=False))
    assert plan is not None
    assert plan.weight_bytes == pytest.approx(39.5e9, rel=0.01)
    assert "is on the hub: planned by the architecture" in notes[0]


@pytest.mark.parametrize(
    ("strategy", "gpus", "said"),
    [
        ("cpu", 2, ["device_map=cpu uses none of the 2 GPUs"]),
        ("single", 4, ["uses one of the 4 GPUs"]),
        ("single", 1, []),
    ],
)
def test_gpus_that_a_strategy_leaves_aside_are_said(strategy: str, gpus: int, said: list[str]) -> None:
    asked = (f"device_map={strategy}", f"device_map.gpus={gpus}", "device_map.gpu=h100")
    notes = [note for note in planned(prepared("model=tiny", *asked)).notes if "that were asked for" in note]
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


def test_a_plan_says_whose_hours_it_has_where_only_the_memory_of_cards_is_given() -> None:
    """Cards of 16 GB are planned slower than cards of 11 GB: the slowest of each size stands for all."""
    overrides = ["model=llama8b", "dataset=squad", "quantization=nf4", "device_map.gpus=2"]
    notes = {}
    for card in ("gpu_memory_gb=16", "gpu=h100"):
        plan, _ = plan_spec(compose_cell([*overrides, f"device_map.{card}"]), Lookup(fetch=False))
        assert plan is not None
        notes[card] = [note for note in plan.notes if "hours" in note]
    said = "by the rates of a T4, which stands for any card of 16 GB"
    assert [said in note for note in notes["gpu_memory_gb=16"]] == [True]
    assert notes["gpu=h100"] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=llama70b", "device_map=2xh100", "dataset=ntml", "probe=gnll"], "holds statements"),
        (
            ["model=llama70b", "device_map=2xh100", "dataset=ntml", "probe=logistic", "probe.layers=[99]"],
            "layer 99 and the model has 80 blocks",
        ),
        (["model=llama70b", "dataset=facts_statements", "probe=gnll"], "holds statements"),
        (["model=custom", "model.path=/nowhere/at/all"], "nowhere"),
    ],
)
def test_a_plan_refuses_what_a_run_would(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_spec(compose_cell(overrides), Lookup(fetch=False))


def test_what_reads_no_model_needs_no_plan_of_one() -> None:
    spec = compose_cell(["model=llama70b", "dataset=facts_statements", "probe=text_baseline"])
    assert plan_spec(spec, Lookup(fetch=False))[0] is None
