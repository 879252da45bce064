"""Cards before Ampere: computed in float16, chosen before the key, and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from probegrid.cell.lookup import Lookup
from probegrid.cell.plan import plan_spec
from probegrid.cell.precision import notes_on, on_its_cards
from probegrid.cell.prepare import prepare
from probegrid.cell.run import share_cell
from probegrid.compose import compose_cell
from probegrid.errors import PlanError, UserError
from probegrid.hardware.cards import GPUS, Gpu
from probegrid.planning.describe import describe
from probegrid.planning.plan import Plan
from probegrid.progress import Progress
from probegrid.schema import Dtype

LARGE = ("model=llama8b", "dataset=squad")
TINY = ("model.dtype=bfloat16", "dataset.num_samples=4", "tracking=none")


def dtype_of(*overrides: str, visible: Sequence[Gpu] = ()) -> Dtype:
    return on_its_cards(compose_cell(overrides), lambda: visible).config.model.dtype


def planned(*overrides: str) -> Plan:
    plan, _ = plan_spec(compose_cell(overrides), Lookup(fetch=False))
    assert plan is not None
    return plan


@pytest.mark.parametrize("card", ["2080 Ti", "T4", "V100"])
def test_a_named_card_without_bfloat16_computes_in_float16(card: str) -> None:
    assert dtype_of(*LARGE, f"device_map.gpu={card}") is Dtype.float16
    assert dtype_of(*LARGE, f"device_map.gpu={card}", visible=[GPUS["H100 80GB"]]) is Dtype.float16
    assert dtype_of(*LARGE, f"device_map.gpu={card}", "device_map=cpu") is Dtype.bfloat16
    assert dtype_of(*LARGE, f"device_map.gpu={card}", "model.dtype=float32") is Dtype.float32


@pytest.mark.parametrize("card", ["3090", "4090", "A100", "H100", "H200", "L40S", "RTX 6000 Ada"])
def test_later_cards_keep_the_type(card: str) -> None:
    assert dtype_of(*LARGE, f"device_map.gpu={card}") is Dtype.bfloat16


def test_where_no_card_is_named_those_that_are_used_decide() -> None:
    old, new = GPUS["T4"], GPUS["A100 80GB"]
    assert dtype_of(*LARGE, visible=[old]) is Dtype.float16
    assert dtype_of(*LARGE, visible=[new, old]) is Dtype.float16
    assert dtype_of(*LARGE, "device_map.gpus=1", visible=[new, old]) is Dtype.bfloat16
    assert dtype_of(*LARGE, "device_map=single", visible=[new, old]) is Dtype.bfloat16
    assert dtype_of(*LARGE) is Dtype.bfloat16


def test_the_plan_says_so() -> None:
    plan = planned("model=llama70b", "dataset=squad", "quantization=nf4", "device_map=4x11gb")
    assert plan.dtype == "float16"
    assert "(nf4, float16)" in describe(plan)
    (note,) = [note for note in plan.as_dict()["notes"] if "float16" in note]
    assert note.startswith("RTX 2080 Ti has no bfloat16 units: computed in float16, 4-bit weights too")


def test_two_h100s_are_planned_as_h100s() -> None:
    """An A100 of the same memory has a third of the arithmetic."""
    read = [
        planned("model=llama8b", "dataset=squad", *device_map).duration.total_s
        for device_map in (
            ["device_map=2xh100"],
            ["device_map.gpus=2", "device_map.gpu=H100", "device_map.gpu_memory_gb=80"],
            ["device_map.gpus=2", "device_map.gpu=A100", "device_map.gpu_memory_gb=80"],
        )
    ]
    assert read[0] == read[1] < 0.6 * read[2]


def test_a_card_without_code_is_refused_by_the_plan_and_by_a_run() -> None:
    with pytest.raises(UserError, match=r"GTX 1080 Ti has compute capability 6\.1"):
        planned(*LARGE, "device_map.gpu=1080 Ti")
    with pytest.raises(UserError, match=r"GTX 1080 Ti has compute capability 6\.1"):
        prepare(compose_cell(["device_map.gpu=1080 Ti"]))


def test_a_v100_is_noted_for_its_wheels() -> None:
    assert "CUDA 12.6" in " ".join(notes_on([GPUS["V100 32GB"]], Dtype.float16))
    assert not list(notes_on([GPUS["H200"]], Dtype.bfloat16))


def test_the_type_is_in_the_key() -> None:
    spec = compose_cell(TINY)
    keys = {prepare(spec, visible=[GPUS[name]]).key for name in ("T4", "RTX 2080 Ti", "A100 40GB", "H200")}
    half = compose_cell(["model.dtype=float16", *TINY[1:]])
    assert keys == {prepare(spec, visible=()).key, prepare(half, visible=()).key}


def test_a_job_on_cards_that_were_not_known_at_submission_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = compose_cell(TINY)
    submitted = prepare(spec, visible=()).key
    monkeypatch.setattr("probegrid.cell.lookup.visible_gpus", lambda: (replace(GPUS["T4"], name="Tesla T4"),))
    with Progress() as progress, pytest.raises(PlanError, match=r"float16.*device_map\.gpu=T4"):
        share_cell(spec, key=submitted, progress=progress)
