"""How many copies of a model a plan has: as many as have room and are worth their start, or what was asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import probegrid.conf
from probegrid.errors import ConfigError, PlanError
from probegrid.hardware.devices import GPUS, Cpu, Hardware
from probegrid.planning.describe import describe
from probegrid.planning.plan import Plan, plan
from probegrid.planning.replicas import WORTH_S
from probegrid.planning.workload import Workload
from probegrid.schema import Architecture, DeviceMapConfig, Dtype, PlacementStrategy, QuantizationMethod

H100 = GPUS["H100 80GB"]
FOUR = Hardware(gpus=(H100,) * 4)
LONG = Workload(40_000, prompt_tokens=200, prefix_tokens=900, new_tokens=16)
MODELS = Path(probegrid.conf.__file__).parent / "model"


def make(hardware: Hardware, replicas: str = "auto", examples: int = 40_000, **device_map: object) -> Plan:
    """The plan of a Llama-8B in bfloat16."""
    facts = yaml.safe_load((MODELS / "llama8b.yaml").read_text())["architecture"]
    return plan(
        Architecture(**facts),
        dtype=Dtype.bfloat16,
        quantization=QuantizationMethod.none,
        device_map=DeviceMapConfig(replicas=replicas, **device_map),  # type: ignore[arg-type]
        hardware=hardware,
        workload=replace(LONG, examples=examples),
    )


def test_a_model_that_fits_one_gpu_uses_all_where_the_reading_is_long() -> None:
    alone, found = make(FOUR, "1"), make(FOUR)
    assert (alone.replicas, found.replicas, found.gpus) == (1, 4, 1)
    assert found.duration == alone.duration
    assert found.tokens_per_s == pytest.approx(4 * alone.tokens_per_s)
    assert found.hours == pytest.approx((alone.load_s + alone.duration.total_s / 4) / 3600)
    assert found.gpu_hours == pytest.approx(4 * found.hours)
    assert found.resources() == replace(alone.resources(), timeout_min=found.resources().timeout_min)
    assert "replicas  4 copies as above share the reading, each on 1 GPU of its own" in describe(found)


def test_a_short_reading_pays_for_no_second_load_and_says_so() -> None:
    found = make(FOUR, examples=400)
    assert found.replicas == 1
    assert found.duration.total_s < 2 * WORTH_S
    assert "device_map.replicas=4 uses all" in describe(found)
    between = next(
        made for examples in (3000, 6000, 12000) if 1 < (made := make(FOUR, examples=examples)).replicas < 4
    )
    assert between.replicas == int(between.duration.total_s // WORTH_S)
    assert f"4 copies of the model have room and {between.replicas} read" in describe(between)


def test_a_gpu_that_others_fill_holds_no_copy() -> None:
    full = replace(H100, memory_gb=10)
    assert make(Hardware(gpus=(H100, H100, full, H100))).replicas == 2
    with pytest.raises(
        PlanError, match=r"replicas=3 asks for 3 copies of the model and 2 have room: each takes 1 of 4"
    ):
        make(Hardware(gpus=(H100, H100, full, H100)), "3")


def test_what_was_asked_for_is_kept_or_refused() -> None:
    assert make(FOUR, "2", examples=10).replicas == 2
    with pytest.raises(PlanError, match="replicas=5 asks for 5 copies"):
        make(FOUR, "5")
    with pytest.raises(PlanError, match="replicas=2 asks for 2 copies of the model and 1 has room"):
        make(FOUR, "2", strategy=PlacementStrategy.balanced)
    for typed in ("0", "many", "-1", "\uff12", "1000"):
        with pytest.raises(ConfigError, match="is neither 'auto' nor a number from 1 to 999"):
            DeviceMapConfig(replicas=typed)


def test_copies_that_were_asked_for_take_the_placement_that_leaves_them_room() -> None:
    """Four GPUs hold the model faster together; two copies have room on two each."""
    small = Hardware(gpus=(replace(H100, memory_gb=10),) * 4)
    assert make(small).gpus == 4
    found = make(small, "2")
    assert (found.replicas, found.gpus) == (2, 2)


def test_a_refusal_offers_what_holds_the_copies_that_were_asked_for() -> None:
    tight = Hardware(gpus=(replace(H100, memory_gb=2),) * 2)
    with pytest.raises(PlanError) as refused:
        make(tight, "2")
    offered = re.findall(r"`device_map.gpu_memory_gb=(\d+)` works \(.* on 1 GPU a copy\)", str(refused.value))
    assert offered, refused.value
    larger = Hardware(gpus=(replace(H100, memory_gb=float(offered[0])),) * 2)
    assert make(larger, "2").replicas == 2
    with pytest.raises(PlanError, match=r"`quantization=nf4 device_map.replicas=auto` works"):
        make(
            replace(tight, gpus=(replace(H100, memory_gb=10),), cpu=Cpu(8)),
            "2",
            strategy=PlacementStrategy.single,
        )


def test_on_a_cpu_there_is_one_unless_more_are_asked_for_and_fit() -> None:
    roomy = Hardware(cpu=Cpu(memory_gb=64))
    assert make(roomy).replicas == 1
    assert make(roomy, "2").replicas == 2
    with pytest.raises(PlanError, match=r"each takes .* GB of CPU memory"):
        make(roomy, "4")
