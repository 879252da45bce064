"""The cells of `experiment=ultra_large` in shape, on a machine of several small GPUs: planned against measured.

    python benchmarks/ultra_large.py --preset rehearsal                        a tiny model on the CPU, in seconds
    python benchmarks/ultra_large.py --gpus 4 --gb 10.5                        four cards, each held to 10.5 GB

Random weights of true shapes in NF4, drawn where they lie; 400 questions. Each model answers on the small cards, and
once on one whole card where it fits (``--whole``): answers, seconds, tokens a second, peaks, and how busy each card is
while prompts are read and while answers are decoded (kernels of torch's profiler, of one batch).
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from answers import NoStop, Workload, seconds
from pipeline import busy
from probegrid.hardware.devices import GPUS, Cpu, Hardware
from probegrid.inference.engine import Engine
from probegrid.inference.generation import Generation
from probegrid.models.build import assemble
from probegrid.models.load import LoadedModel
from probegrid.planning.families import architecture_from_config
from probegrid.planning.plan import Plan, plan
from probegrid.planning.workload import Workload as Planned
from probegrid.schema import DecodingConfig, DeviceMapConfig, Dtype, QuantizationMethod
from random_models import SHAPES, RandomParts, config

SHAPES["qwen72b"] = dict(
    hidden_size=8192, intermediate_size=29568, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
    vocab_size=152064,
)  # fmt: skip
DTYPE, NF4 = torch.bfloat16, QuantizationMethod.nf4
console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Asked:
    """Prompts of a dataset's shape: tokens that all share, and each one's own."""

    name: str
    shared: int
    own: tuple[int, int]
    questions: int = 400
    new: int = 16


SQUAD, TRIVIA = Asked("squad", 1100, (130, 260)), Asked("trivia_qa", 260, (35, 65))
PRESETS = {
    "four_cards": [
        (shape, asked) for shape in ("llama70b", "qwen72b", "mistral_large") for asked in (SQUAD, TRIVIA)
    ],
    "rehearsal": [("tiny", replace(SQUAD, shared=40, own=(5, 9), questions=12, new=4))],
}


class Tokenizer(NoStop):
    """No text, and no token that ends an answer."""

    eos_token_id = None


@dataclass
class Answered:
    """What a model made of all questions."""

    generations: list[Generation]
    read_s: float
    peaks: dict[int, float]
    busy: str = ""


def planned(shape: str, asked: Asked, gpus: int, gigabytes: float) -> Plan:
    """The plan for so many cards of so much memory, half a gigabyte of each left to the allocator's gaps."""
    gpu = replace(GPUS["H100 80GB"], memory_gb=gigabytes)
    mean = (asked.own[0] + asked.own[1]) // 2
    work = Planned(
        examples=asked.questions, prompt_tokens=mean, prefix_tokens=asked.shared, new_tokens=asked.new,
        longest_prompt=asked.own[1],
    )  # fmt: skip
    return plan(
        architecture_from_config(config(shape).to_dict()), dtype=Dtype.bfloat16, quantization=NF4,
        device_map=DeviceMapConfig(gpus=gpus, overhead_gb=min(0.5, gigabytes / 20)),
        hardware=Hardware((gpu,) * gpus, Cpu()), workload=work,
    )  # fmt: skip


def answer(found: Plan, model: torch.nn.Module, work: Workload, asked: Asked, *, profiled: bool) -> Answered:
    """Answer everything in the plan's batches; with ``profiled``, a batch once more under the profiler."""
    decoding = DecodingConfig(max_new_tokens=asked.new)
    loaded = LoadedModel(model, 0.0, limits=found.limits)  # type: ignore[arg-type]
    answers: dict[int, Generation] = {}

    def run() -> Engine:
        engine = Engine(loaded, Tokenizer(), work.prefix, decoding, (), suffixes=work.suffixes)  # type: ignore[arg-type]
        pending = engine.lay_out({index: len(suffix) for index, suffix in enumerate(work.suffixes)})
        while pending:
            batch = pending.pop(0)
            generations = engine.answer(
                [work.suffixes[index] for index in batch], [str(index) for index in batch]
            )
            if generations is None:
                console.print(f"  memory ran out with {len(batch)} questions; halved")
                pending[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                continue
            answers.update(zip(batch, (greedy for (greedy,) in generations), strict=True))
        return engine

    gpus = range(torch.cuda.device_count())
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    read_s = seconds(run)
    peaks = {gpu: torch.cuda.max_memory_allocated(gpu) / 1e9 for gpu in gpus}
    shares = ""
    if profiled and torch.cuda.is_available():
        few = [work.suffixes[index] for index in range(found.batch_size)]
        keys = [str(index) for index in range(len(few))]
        used = len(found.placement.gpus)
        engines = [
            Engine(
                loaded,
                Tokenizer(),  # type: ignore[arg-type]
                work.prefix,
                replace(decoding, max_new_tokens=new),
                (),
                suffixes=work.suffixes,
            )
            for new in (1, asked.new)
        ]
        for engine in engines:
            engine.answer(few, keys)
        prompts_s, of_prompts = busy(lambda: engines[0].answer(few, keys), used)
        all_s, of_all = busy(lambda: engines[1].answer(few, keys), used)
        reading = " ".join(f"{spent / prompts_s:.0%}" for spent in of_prompts.values())
        decoding_s = all_s - prompts_s
        steps = " ".join(f"{(of_all[gpu] - of_prompts[gpu]) / decoding_s:.0%}" for gpu in of_all)
        shares = f"reading {reading}; decoding {steps}"
    return Answered([answers[index] for index in sorted(answers)], read_s, peaks, shares)


def cap(gpus: int, gigabytes: float | None) -> None:
    """Let torch hold no more than so much on each GPU; None: all of it."""
    gc.collect()
    for gpu in range(gpus if torch.cuda.is_available() else 0):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(gpu).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if gigabytes is None else gigabytes * 1e9 / total, gpu)


def main() -> None:
    """Run a preset and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="four_cards")
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--gb", type=float, default=10.5)
    parser.add_argument("--models", nargs="+", help="of the preset's, these alone")
    parser.add_argument("--whole", nargs="*", default=[], help="models that answer on one whole card too")
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.gpus} cards of {arguments.gb} GB")
    for column in ("cell", "blocks, streamed", "batch", "read s", "planned", "tokens/s", "peaks GB", "planned", "busy",
                   "one card: s", "same answers"):  # fmt: skip
        table.add_column(column)
    model, held = None, ""
    for shape, asked in PRESETS[arguments.preset]:
        if arguments.models and shape not in arguments.models:
            continue
        of_shape = config(shape)
        parts = RandomParts(of_shape, DTYPE, NF4)
        work = Workload.draw(of_shape.vocab_size, asked.questions, asked.shared, asked.own, asked.new)
        one: Answered | None = None
        if shape in arguments.whole:
            model = None
            cap(arguments.gpus, None)
            whole = planned(shape, asked, 1, 76.0)
            one = answer(
                whole, assemble(of_shape, whole.placement, parts, DTYPE), work, asked, profiled=False
            )
            held = ""
        found = planned(shape, asked, arguments.gpus, arguments.gb)
        if held != repr((shape, found.placement)):
            model = None
            cap(arguments.gpus, None)
            started = time.perf_counter()
            model = assemble(of_shape, found.placement, parts, DTYPE)
            held = repr((shape, found.placement))
            console.print(f"{shape}: built in {time.perf_counter() - started:.0f} s")
        cap(arguments.gpus, arguments.gb)
        assert model is not None
        many = answer(found, model, work, asked, profiled=True)
        tokens = sum(each.steps for each in many.generations)
        same = ""
        if one is not None:
            agree = sum(
                a.token_ids == b.token_ids for a, b in zip(one.generations, many.generations, strict=True)
            )
            same = f"{agree} of {asked.questions}"
        table.add_row(
            f"{shape} {asked.name}", f"{found.blocks}, {len(found.placement.streamed)}", str(found.batch_size),
            f"{many.read_s:.1f}", f"{found.duration.total_s:.1f}", f"{tokens / many.read_s:.0f}",
            " ".join(f"{peak:.2f}" for gpu, peak in many.peaks.items() if gpu in found.placement.gpus),
            " ".join(f"{found.loads[gpu].total / 1e9:.2f}" for gpu in found.placement.gpus), many.busy,
            "" if one is None else f"{one.read_s:.1f}", same,
        )  # fmt: skip
        console.print(table)
    console.print(f"GPU-hours of these cells, loading left out: see 'read s' x {arguments.gpus} / 3600")


if __name__ == "__main__":
    main()
