"""The choices of `model` that come from published configs have their models' published sizes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from probegrid.compose import compose_cell
from probegrid.planning.architecture import parameters

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
