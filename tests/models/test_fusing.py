"""A model on the CPU is not fused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from probegrid.models.fusing import fuse


def test_a_model_on_the_cpu_is_left_alone(checkpoint: Callable[[str], Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.float32)
    assert not fuse(model)
    assert not any("forward" in vars(module) for module in model.modules())
