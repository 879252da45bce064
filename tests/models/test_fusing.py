"""A model on the CPU is not fused; nor is one of which little is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from probegrid.models.fusing import fuse, pays


def test_a_model_on_the_cpu_is_left_alone(checkpoint: Callable[[str], Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32)
    assert not fuse(model)
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_pays_hangs_on_tokens_and_on_matrices_however_they_are_held(
    checkpoint: Callable[[str], Path],
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32)
    parameters = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear)
    )
    enough = -(-7e15 // (2 * parameters))
    assert pays(model, int(enough))
    assert not pays(model, int(enough) - 1)
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.empty(1))  # packed
    assert pays(model, int(enough))
