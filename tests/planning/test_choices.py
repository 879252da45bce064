"""The choices of `model` that come from published configs have their models' published sizes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import probegrid
from probegrid.compose import compose_cell
from probegrid.errors import ConfigError, PlanError
from probegrid.planning.architecture import parameters, published_bytes
from probegrid.schema import Dtype

ROOT = Path(__file__).parents[2]


def _published() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("model_choices", ROOT / "benchmarks" / "model_choices.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.PUBLISHED
    return found


PUBLISHED = _published()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_choice_has_the_published_size(name: str) -> None:
    model = compose_cell([f"model={name}"]).config.model
    assert model.path == PUBLISHED[name].path
    assert model.architecture is not None
    counted = parameters(model.architecture).total(model.architecture.layers)
    assert counted == pytest.approx(PUBLISHED[name].billions * 1e9, rel=0.005)


@pytest.mark.parametrize(
    ("name", "gib"),
    [("gpt_oss_20b", 12.8), ("gpt_oss_120b", 60.8)],  # gpt-oss model card (arXiv 2508.10925), table 1
)
def test_a_choice_that_is_published_quantized_has_the_published_bytes(name: str, gib: float) -> None:
    architecture = compose_cell([f"model={name}"]).config.model.architecture
    assert architecture is not None
    found = published_bytes(architecture, Dtype.bfloat16)
    assert found is not None
    assert found.total(architecture.layers) == pytest.approx(gib * 2**30, rel=0.005)


def test_what_is_published_quantized_is_planned_so_before_it_is_fetched() -> None:
    """DeepSeek-V3: a byte a weight, whole, and no other quantization can be asked of its files."""
    asked = ("model=deepseek_v3", "dataset=squad", "device_map.gpus=8")
    plan = probegrid.plan([*asked, "device_map.gpu=h200"])
    assert plan is not None
    assert plan.quantization == "fp8"
    assert plan.download_bytes == plan.weight_bytes == pytest.approx(671e9, rel=0.01)
    assert not plan.placement.streamed
    with pytest.raises(PlanError, match=r"must hold all 61 blocks, 674.* `device_map=cpu` works") as refused:
        probegrid.plan([*asked, "device_map.gpu=h100", "device_map.gpus=4"])
    assert "quantization=" not in str(refused.value)
    nf4 = probegrid.plan([*asked, "device_map.gpu=h200", "quantization=nf4"])
    assert nf4 is not None
    assert "published as fp8, which quantization=auto alone takes" in nf4.notes[-1]


def test_a_form_whose_bytes_are_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"stored=gptq is no form .* give fp8, mxfp4 or null"):
        compose_cell(["model=deepseek_v3", "model.architecture.stored=gptq"])


def test_unpacked_experts_are_said_with_what_keeps_them_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "kernels" else find(name))
    asked = ("model=gpt_oss_120b", "dataset=squad", "device_map.gpu=h100")
    with pytest.raises(PlanError, match=r"233\.7 GB .*unpacked to bfloat16 here.*package kernels"):
        probegrid.plan([*asked, "device_map.gpus=2"])
    whole = probegrid.plan([*asked, "device_map.gpus=4"])
    assert whole is not None
    assert whole.weight_bytes > 3 * whole.download_bytes
