"""A model spread over several GPUs against the same on one: seconds, busy share of each card, agreement of answers.

    python benchmarks/pipeline.py --preset rehearsal                        a small model on the CPU, in seconds
    python benchmarks/pipeline.py --preset prefill --gpus 1 2               8B in bf16, long prompts, few new tokens
    python benchmarks/pipeline.py --preset decode --gpus 1 2                the same, short prompts, many new tokens

Random weights, drawn by name, so that all models have the same. The counts of GPUs take turns; medians and ratios are
printed. A card is busy while one of its kernels runs, by what its driver says in runs of their own.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig, PreTrainedModel

from answers import NoStop, Workload, seconds
from probegrid.hardware.telemetry import Telemetry
from probegrid.inference.generation import Generation, Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from probegrid.models.build import assemble
from probegrid.models.fusing import fuse
from probegrid.planning.placement import Placement
from probegrid.schema import QuantizationMethod
from random_models import RandomParts, config

PRESETS = {
    "rehearsal": dict(shape="small", method="none", questions=12, shared=40, own=(5, 9), new=6, chunk=64),
    "prefill": dict(shape="llama8b", method="none", questions=400, shared=900, own=(130, 260), new=16, chunk=16384),
    "decode": dict(shape="llama8b", method="none", questions=400, shared=900, own=(16, 40), new=128, chunk=16384),
    "nf4": dict(shape="llama70b", method="nf4", questions=200, shared=900, own=(130, 260), new=16, chunk=16384),
}  # fmt: skip
console = Console(width=140, highlight=False)


def spread(shape: PreTrainedConfig, gpus: int, *, for_steps: bool) -> Placement:
    """As many blocks on each GPU, or fewer beside the head, which steps read too; the embedding on the first."""
    blocks, width = shape.num_hidden_layers, shape.hidden_size
    of_a_block = 2 * width * width * (1 + shape.num_key_value_heads / shape.num_attention_heads)
    of_a_block += 3 * width * shape.intermediate_size
    head = shape.vocab_size * width / of_a_block if for_steps and gpus > 1 else 0
    ends = [min(blocks, round((blocks + head) * gpu / gpus)) for gpu in range(gpus + 1)]
    return Placement(
        0, tuple(gpu for gpu in range(gpus) for _ in range(ends[gpu + 1] - ends[gpu])), (), gpus - 1
    )


def answer(
    model: PreTrainedModel, work: Workload, chunk: int, lanes: int | None, new: int
) -> list[Generation]:
    """All answers, as one batch."""
    decoder = SharedPrefixDecoder(model, work.prefix, chunk_tokens=chunk, lanes=lanes)
    rule, keys = StopRule(NoStop(), [], []), [""] * len(work.suffixes)
    found = generate(decoder, work.suffixes, keys, rule, max_new_tokens=new, sampling=Sampling())
    return [greedy for (greedy,) in found]


def busy(call: Callable[[], object], gpus: int, least_s: float = 3.0) -> tuple[float, list[float]]:
    """Seconds of a call, and in what share of them each GPU ran a kernel.

    The driver tells it of the last fraction of a second, so that a short call is made again until ``least_s``. Unlike
    torch's profiler it slows nothing.
    """
    calls, took = 0, 0.0
    with Telemetry(lambda said: None, every_s=0.05) as telemetry:
        while not calls or took < least_s:
            took += seconds(call)
            calls += 1
    shares = []
    for gpu in range(gpus):
        values = [
            value for _, value in telemetry.series().get(f"system/gpu_{gpu}_utilization_percentage", [])
        ]
        shares.append(statistics.mean(values) / 100 if values else math.nan)
    return took / calls, shares


def of_the_rest(whole: tuple[float, list[float]], part: tuple[float, list[float]]) -> list[float]:
    """In what share of the seconds of a call, beside those of a part of it, each GPU ran a kernel."""
    rest_s = whole[0] - part[0]
    return [
        (share * whole[0] - other * part[0]) / rest_s for share, other in zip(whole[1], part[1], strict=True)
    ]


def main() -> None:
    """Run a preset and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="prefill")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    preset = PRESETS[arguments.preset]
    shape, on_gpus = config(preset["shape"]), torch.cuda.is_available()
    method = QuantizationMethod(preset["method"])
    parts = RandomParts(shape, torch.bfloat16 if on_gpus else torch.float32, method)
    work = Workload.draw(
        shape.vocab_size, preset["questions"], preset["shared"], preset["own"], preset["new"]
    )
    models = {
        gpus: assemble(shape, spread(shape, gpus, for_steps=preset["new"] > 100), parts, parts.dtype)
        for gpus in arguments.gpus
    }
    for model in models.values():
        fuse(model)

    def run(gpus: int, new: int = preset["new"]) -> list[Generation]:
        return answer(models[gpus], work, preset["chunk"], None if on_gpus else gpus, new)

    answers = {gpus: run(gpus) for gpus in models}  # warms up, too
    times: dict[int, list[float]] = {gpus: [] for gpus in models}
    for _ in range(arguments.repeats):
        for gpus in models:
            times[gpus].append(seconds(lambda gpus=gpus: run(gpus)))
    table = Table(title=f"{arguments.preset}: {preset}")
    for column in ("GPUs", "median s", "all s", "times faster", "same answers", "largest difference",
                   "busy reading prompts", "busy decoding", "peaks GB"):  # fmt: skip
        table.add_column(column)
    first = arguments.gpus[0]
    for gpus in models:
        for gpu in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(gpu)
        median = statistics.median(times[gpus])
        same = sum(a.token_ids == b.token_ids for a, b in zip(answers[gpus], answers[first], strict=True))
        differences = [
            abs(x - y)
            for a, b in zip(answers[gpus], answers[first], strict=True)
            if a.token_ids == b.token_ids
            for x, y in zip(a.token_logprobs, b.token_logprobs, strict=True)
        ]
        shares = ["", ""]
        if on_gpus:
            prompts = busy(lambda gpus=gpus: run(gpus, 1), gpus)
            steps = of_the_rest(busy(lambda gpus=gpus: run(gpus), gpus), prompts)
            shares = [" ".join(f"{share:.0%}" for share in each) for each in (prompts[1], steps)]
        peaks = (
            " ".join(f"{torch.cuda.max_memory_allocated(gpu) / 1e9:.1f}" for gpu in range(gpus))
            if on_gpus
            else ""
        )
        table.add_row(
            str(gpus), f"{median:.3f}", " ".join(f"{value:.3f}" for value in times[gpus]),
            f"{statistics.median(times[first]) / median:.2f}", f"{same} of {len(answers[gpus])}",
            f"{max(differences, default=0):.1e}", *shares, peaks,
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
