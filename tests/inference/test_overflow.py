"""A model whose numbers overflow is refused with the way out, by its answers and by its activations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import probegrid
from probegrid.errors import RunError
from probegrid.inference.overflow import refuse_overflow


def test_numbers_pass_and_minus_infinity_is_one() -> None:
    refuse_overflow([-0.1, -math.inf, 0.0], torch.float16)
    refuse_overflow([], torch.float16)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_others_are_refused_with_the_way_out(value: float) -> None:
    with pytest.raises(RunError, match=r"overflow in float16.*model\.dtype=float32"):
        refuse_overflow([-0.1, value], torch.float16)
    with pytest.raises(RunError, match=r"not finite in bfloat16: its weights are damaged"):
        refuse_overflow([value], torch.bfloat16)
    with pytest.raises(RunError, match=r"in float32: its weights are damaged; fetch it again\.$"):
        refuse_overflow([value], torch.float32)


@pytest.fixture
def too_large(tmp_path: Path) -> Iterator[list[str]]:
    """The embedded model with a product in its third block that float16 cannot hold and float32 can."""
    from safetensors.torch import load_file, save_file

    from probegrid.embedded import checkpoint_dir

    for file in checkpoint_dir().iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.2.mlp.down_proj.weight"] *= 1e6
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    yield [
        "model=custom", f"model.path={tmp_path}", "dataset.num_samples=4", "prompt.num_few_shot=1",
        "decoding.max_new_tokens=4", "tracking=none", f"store_dir={tmp_path}/store", f"results_dir={tmp_path}/results",
    ]  # fmt: skip


@pytest.mark.slow  # whole cells in float16, which a CPU computes slowly
@pytest.mark.parametrize(
    "probe",
    [("probe=gnll",), ("probe=p_true", "probe.num_few_shot=1", "decoding.num_generations=2")],
    ids=" ".join,
)
def test_answers_are_refused_in_float16_and_given_in_float32(
    too_large: list[str], probe: tuple[str, ...]
) -> None:
    words = [*too_large, *probe]
    with pytest.raises(RunError, match=r"overflow in float16.*model\.dtype=float32"):
        probegrid.run([*words, "model.dtype=float16"])
    assert math.isfinite(probegrid.run([*words, "model.dtype=float32"]).metrics["accuracy"])


def test_activations_are_refused_by_layer(too_large: list[str]) -> None:
    words = [
        *too_large,
        "model.dtype=float16",
        "dataset=facts_statements",
        "probe=logistic",
        "probe.layers=[4]",
    ]
    with pytest.raises(RunError, match=r"at layer 4 are not finite; float16 overflows.*model\.dtype=float32"):
        probegrid.run([*words, "dataset.num_samples=60"])
