"""A model larger than its GPUs: blocks in NF4 streamed from CPU memory, against the same model on one GPU.

    python benchmarks/offload.py --preset rehearsal                  a small model on the CPU, in seconds
    python benchmarks/offload.py                                     Mistral-Large-2's shape on two GPUs of 10.5 GB

Random weights, drawn by name, so that both models have the same. Says whether the logits are equal, how fast
weights stream against a plain copy from page-locked memory, tokens a second at batch 1 and at the planned batch,
the peak of each GPU against the plan, and how long accelerate's own CPU offload of the bf16 weights takes for a
token (measured on a few blocks, whose time is scaled to all; everything else of a step is left out in its favour).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

from answers import Workload as Prompts
from probegrid.hardware.devices import GPUS, Cpu, Hardware
from probegrid.hardware.memory import or_none_if_out_of_memory  # noqa: F401  # for the allocator's setting
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.build import assemble
from probegrid.models.dispatch import streamed_bytes, torch_device
from probegrid.models.offload import page_locked
from probegrid.models.skeleton import skeleton
from probegrid.planning.families import architecture_from_config
from probegrid.planning.placement import Placement
from probegrid.planning.plan import Plan, plan
from probegrid.planning.workload import Workload
from probegrid.schema import DeviceMapConfig, Dtype, QuantizationMethod
from random_models import RandomParts
from random_models import config as config_of

PRESETS = {
    "h200": dict(shape="mistral_large", gpu_gb=10.5, questions=400, shared=900, own=195, new=16, steps=8,
                 accelerate_blocks=(2, 6), copy_gb=2.0),
    "rehearsal": dict(shape="small", gpu_gb=0.003, questions=8, shared=40, own=12, new=4, steps=3,
                      accelerate_blocks=(1, 2), copy_gb=0.01),
}  # fmt: skip
DTYPE = torch.bfloat16
console = Console(width=120, highlight=False)


@dataclass
class Run:
    """What one decoder did."""

    prefill_s: float
    step_s: float
    """Median of the steps."""
    streamed_gb_per_s: dict[int, float]
    """By GPU, over the steps."""
    logits: Tensor
    """float32 [2, rows, vocabulary]: after the prefill and after the last step."""

    def tokens_per_s(self, rows: int, new: int) -> float:
        """Of a whole batch: prefill, then steps."""
        return rows * new / (self.prefill_s + (new - 1) * self.step_s)


def make_plan(preset: dict, config: LlamaConfig, batch_size: int | None) -> Plan:
    """The plan for two GPUs of the preset's size, a twentieth of it kept free for the allocator's gaps."""
    gpu = replace(GPUS["H200"], memory_gb=preset["gpu_gb"])
    work = Workload(
        examples=preset["questions"], prompt_tokens=preset["own"], prefix_tokens=preset["shared"],
        new_tokens=preset["new"], batch_size=batch_size,
    )  # fmt: skip
    return plan(
        architecture_from_config(config.to_dict()), dtype=Dtype.bfloat16, quantization=QuantizationMethod.nf4,
        device_map=DeviceMapConfig(gpus=2, overhead_gb=preset["gpu_gb"] / 20), hardware=Hardware((gpu, gpu), Cpu()),
        workload=work,
    )  # fmt: skip


def read(model: PreTrainedModel, prompts: Prompts, rows: int, steps: int, pass_tokens: int) -> Run:
    """Prefill the first ``rows`` prompts behind the shared prefix, then step; one step more is not counted."""
    suffixes = prompts.suffixes[:rows]
    decoder = SharedPrefixDecoder(model, prompts.prefix, chunk_tokens=pass_tokens)
    logits: list[Tensor] = []
    prefill_s = seconds(lambda: logits.append(decoder.prefill(suffixes, room=steps + 1)))
    decoder.step([5] * rows)
    before, times = streamed_bytes(model), []
    for step in range(steps):
        times.append(seconds(lambda step=step: logits.append(decoder.step([7 + step] * rows))))
    rates = {gpu: (count - before[gpu]) / sum(times) / 1e9 for gpu, count in streamed_bytes(model).items()}
    ends = torch.stack([logits[0].float().cpu(), logits[-1].float().cpu()])
    return Run(prefill_s, statistics.median(times), rates, ends)


def copy_rates(gpus: list[int], gigabytes: float) -> dict[int, tuple[float, float]]:
    """GB/s of a large copy from page-locked memory to each GPU: alone, and while the others are copied to."""
    size = int(gigabytes * 1e9)
    sources = [page_locked(size) for _ in gpus]
    targets = [torch.empty(size, dtype=torch.uint8, device=torch_device(gpu)) for gpu in gpus]

    def copy(which: list[int]) -> float:
        for index in which:
            targets[index].copy_(sources[index], non_blocking=True)
        for index in which:
            synchronize(gpus[index])
        started = time.perf_counter()
        for _ in range(4):
            for index in which:
                targets[index].copy_(sources[index], non_blocking=True)
        for index in which:
            synchronize(gpus[index])
        return 4 * size / (time.perf_counter() - started) / 1e9

    together = copy(list(range(len(gpus))))
    return {gpu: (copy([index]), together) for index, gpu in enumerate(gpus)}


def synchronize(gpu: int) -> None:
    """Wait for a GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize(gpu)


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of a call, the work of every GPU included."""
    for gpu in range(torch.cuda.device_count()):
        synchronize(gpu)
    started = time.perf_counter()
    call()
    for gpu in range(torch.cuda.device_count()):
        synchronize(gpu)
    return time.perf_counter() - started


def accelerate_token_s(config: LlamaConfig, blocks: int, repeats: int = 3) -> float:
    """Seconds a token of a bf16 model of so many blocks takes under accelerate's CPU offload to the first GPU."""
    from accelerate import cpu_offload

    changed = type(config).from_dict({**config.to_dict(), "num_hidden_layers": blocks, "vocab_size": 256})
    device = torch_device(0)
    model = skeleton(changed, None, DTYPE)
    for name, parameter in list(model.named_parameters()):
        owner, _, attribute = name.rpartition(".")
        value = torch.empty(parameter.shape, dtype=DTYPE, device=device).normal_(std=0.02).cpu()
        setattr(model.get_submodule(owner), attribute, torch.nn.Parameter(value, requires_grad=False))
    cpu_offload(model.eval(), execution_device=device)
    token = torch.tensor([[5]], device=device)
    with torch.inference_mode():
        model(token)
        return statistics.median(seconds(lambda: model(token)) for _ in range(repeats))


def main() -> None:
    """Run a preset and print what it found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="h200")
    parser.add_argument("--no-accelerate", action="store_true", help="leave accelerate's offload out")
    arguments = parser.parse_args()
    preset = PRESETS[arguments.preset]
    config = config_of(preset["shape"])
    found = make_plan(preset, config, None)
    say_plan(found)
    gpus = list(found.placement.gpus)
    own = (preset["own"], preset["own"])
    prompts = Prompts.draw(config.vocab_size, preset["questions"], preset["shared"], own, preset["new"])
    parts = RandomParts(config, DTYPE, QuantizationMethod.nf4)
    whole = Placement(0, (0,) * config.num_hidden_layers, (), 0)
    batches = (1, found.batch_size)

    def run(placement: Placement) -> list[Run]:
        started = time.perf_counter()
        model = assemble(config, placement, parts, DTYPE)
        for gpu in gpus:
            synchronize(gpu)
        console.print(
            f"built with {len(placement.streamed)} streamed blocks in {time.perf_counter() - started:.0f} s"
        )
        pass_tokens = found.limits.pass_tokens
        return [read(model, prompts, rows, preset["steps"], pass_tokens) for rows in batches]

    expected = run(whole)
    gc.collect()
    copies = copy_rates(list(found.placement.streams), preset["copy_gb"])
    cap(gpus, preset["gpu_gb"])
    results = run(found.placement)
    for rows, one, other in zip(batches, results, expected, strict=True):
        equal = torch.equal(one.logits, other.logits)
        difference = float((one.logits - other.logits).abs().max())
        rates = "; ".join(
            f"GPU {gpu}: {rate:.1f} GB/s, {rate / copies[gpu][0]:.0%} of a copy alone ({copies[gpu][0]:.1f}), "
            f"{rate / copies[gpu][1]:.0%} of copies to all at once ({copies[gpu][1]:.1f})"
            for gpu, rate in one.streamed_gb_per_s.items()
        )
        console.print(
            f"batch {rows}: logits equal: {equal} (largest difference {difference:.3g}); prefill "
            f"{one.prefill_s:.2f} s, a step {one.step_s * 1e3:.0f} ms ({other.step_s * 1e3:.0f} on one GPU); decoding "
            f"{rows / one.step_s:.2f} tokens/s, with its prefill {one.tokens_per_s(rows, preset['new']):.2f}\n  {rates}"
        )
    console.print(f"planned: {found.tokens_per_s:.2f} tokens/s, prefix and prefills included")
    if torch.cuda.is_available():
        for gpu in gpus:
            peak, planned = torch.cuda.max_memory_allocated(gpu) / 1e9, found.loads[gpu].total / 1e9
            console.print(
                f"GPU {gpu}: peak {peak:.2f} GB, planned {planned:.2f} GB ({peak / planned - 1:+.1%})"
            )
    if not arguments.no_accelerate:
        compare_with_accelerate(config, preset, results[0])


def say_plan(found: Plan) -> None:
    """The plan in two lines."""
    placement = found.placement
    resident = {
        gpu: placement.blocks.count(gpu) - len(placement.streams.get(gpu, ())) for gpu in placement.gpus
    }
    console.print(
        f"plan: {found.weight_bytes / 1e9:.1f} GB of weights, batch {found.batch_size}; {len(placement.streamed)} of "
        f"{found.blocks} blocks stream, resident {resident}; embedding on {placement.embedding}; "
        f"{found.cpu_bytes / 1e9:.1f} GB in CPU memory"
    )


def cap(gpus: list[int], gigabytes: float) -> None:
    """Let torch allocate no more than so much on each GPU, and count peaks from here."""
    if not torch.cuda.is_available():
        return
    torch.cuda.empty_cache()
    for gpu in gpus:
        total = torch.cuda.get_device_properties(gpu).total_memory
        torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / total, gpu)
        torch.cuda.reset_peak_memory_stats(gpu)


def compare_with_accelerate(config: LlamaConfig, preset: dict, ours: Run) -> None:
    """Scale the time of a block under accelerate's offload to all blocks."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    few, more = preset["accelerate_blocks"]
    block_s = (accelerate_token_s(config, more) - accelerate_token_s(config, few)) / (more - few)
    token_s = block_s * config.num_hidden_layers
    console.print(
        f"accelerate's CPU offload of bf16 weights: {block_s * 1e3:.0f} ms a block, x {config.num_hidden_layers} = "
        f"{token_s:.1f} s a token at batch 1 (scaled from {few} and {more} blocks); ours {ours.step_s:.2f} s: "
        f"{token_s / ours.step_s:.1f} times faster"
    )


if __name__ == "__main__":
    main()
