"""The plan against what is measured: bytes of the weights, and the peak of an actual reading.

    python benchmarks/plan_check.py --preset rehearsal       a small model on the CPU, weights alone
    python benchmarks/plan_check.py                          Llama-70B's shape in NF4 on one GPU, 100 questions

Weights must agree within 1%, the peak within 10%.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from rich.console import Console
from transformers import PreTrainedModel

from answers import Workload as Prompts
from answers import ours, seconds
from probegrid.models.checkpoint_config import architecture_from_config
from probegrid.models.hardware import GPUS, Cpu, Hardware
from probegrid.models.packing import constants_of
from probegrid.models.plan import plan
from probegrid.models.workload import Workload
from probegrid.schema import DeviceMapConfig, Dtype, PlacementStrategy, QuantizationMethod
from random_models import random_nf4_model

PRESETS = {
    "h200": dict(shape="llama70b", questions=100, shared=900, own=195, new=16, chunk=16384),
    "rehearsal": dict(shape="100m", questions=6, shared=40, own=8, new=3, chunk=64),
}
console = Console(width=120, highlight=False)


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of every tensor of a model, quantization constants included, each counted once."""
    held = [getattr(holder, attribute) for holder, attribute in constants_of(model)]
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *held)}
    return sum(tensors.values())


def main() -> None:
    """Run a preset and print both numbers of each pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="h200")
    preset = PRESETS[parser.parse_args().preset]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = random_nf4_model(preset["shape"], device)
    work = Workload(preset["questions"], preset["own"], preset["shared"], preset["new"])
    found = plan(
        architecture_from_config(model.config.to_dict()), dtype=Dtype.bfloat16, quantization=QuantizationMethod.nf4,
        device_map=DeviceMapConfig(strategy=PlacementStrategy.single, overhead_gb=0.0),
        hardware=Hardware((replace(GPUS["H200"], name=device),), Cpu()),
        workload=replace(work, batch_size=preset["questions"]),
    )  # fmt: skip
    compare("weights", weight_bytes(model), found.weight_bytes)
    own = (preset["own"], preset["own"])
    prompts = Prompts.draw(model.config.vocab_size, preset["questions"], preset["shared"], own, preset["new"])
    chunk = max(preset["chunk"], preset["questions"] * preset["own"])
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken_s = seconds(lambda: ours(model, prompts, found.batch_size, chunk))
    if device == "cuda":
        compare("peak", torch.cuda.max_memory_allocated(), found.loads[0].total)
    console.print(
        f"batch {found.batch_size}: read in {taken_s:.1f} s, planned {found.duration.total_s:.1f} s "
        "(the rates of an H200)"
    )


def compare(what: str, measured: int, planned: int) -> None:
    """One line."""
    console.print(
        f"{what}: measured {measured / 1e9:.3f} GB, planned {planned / 1e9:.3f} GB ({planned / measured - 1:+.2%})"
    )


if __name__ == "__main__":
    main()
