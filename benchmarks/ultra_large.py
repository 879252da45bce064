"""The cells of `experiment=ultra_large` in shape, on a machine of several small GPUs: planned against measured.

    python benchmarks/ultra_large.py --preset rehearsal                        a tiny model on the CPU, in seconds
    python benchmarks/ultra_large.py --gpus 4 --gb 10.5                        four cards, each held to 10.5 GB

Random weights of true shapes in NF4, drawn where they lie; 400 questions. Each model answers on the small cards, on one
whole card (``--whole``), and by stock ``generate`` with accelerate's hooks, its blocks spread over whole cards
(``--stock``, a batch of 16, scaled). What is printed of each cell: seconds, tokens a second, peaks, how busy each card
is while prompts are read and while answers are decoded (the driver says in what share of the time a kernel ran), what
its link carries, and whether the first answers are those of one card, bit for bit, in the same passes.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from dataclasses import dataclass, field, replace

import torch
from rich.console import Console
from rich.table import Table

from answers import NoStop, Workload, stock
from offload import seconds
from pipeline import busy, of_the_rest, spread
from probegrid.hardware.devices import GPUS, Cpu, Hardware
from probegrid.inference.engine import Engine
from probegrid.inference.generation import Generation
from probegrid.models.build import assemble
from probegrid.models.dispatch import streamed_bytes
from probegrid.models.fusing import fuse, pays
from probegrid.models.load import LoadedModel
from probegrid.planning.families import architecture_from_config
from probegrid.planning.plan import Limits, Plan, plan
from probegrid.planning.workload import Workload as Planned
from probegrid.planning.workload import pass_tokens
from probegrid.schema import DecodingConfig, DeviceMapConfig, Dtype, QuantizationMethod
from random_models import SHAPES, RandomParts, config

SHAPES["qwen72b"] = dict(
    hidden_size=8192, intermediate_size=29568, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
    vocab_size=152064,
)  # fmt: skip
DTYPE, NF4 = torch.bfloat16, QuantizationMethod.nf4
STOCK_ROWS, FIRST = 16, 64
"""Of the questions: those that stock ``generate`` answers, and those whose answers are compared."""
console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Asked:
    """Prompts of a dataset's shape: tokens that all share, and each one's own."""

    name: str
    shared: int
    own: tuple[int, int]
    questions: int = 400
    new: int = 16
    is_checked: bool = True


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
class Measured:
    """What a placement of a model took to answer."""

    read_s: float
    """Of all questions, the prefix included, the session's check of its engine left out."""
    check_s: float
    tokens: int
    peaks: dict[int, float] = field(default_factory=dict)
    """GB that torch held on each GPU."""
    first: list[Generation] = field(default_factory=list)
    """Answers to the first batch, in the passes of the small cards."""


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


def engine_of(
    model: torch.nn.Module, work: Workload, new: int, limits: Limits, *, is_tried: bool = False
) -> Engine:
    """An engine for all questions, its prefix read.

    With ``is_tried`` as in a cell, where it is tried first. Random weights so deep may be farther from themselves in
    bfloat16, attention computed another way, than a trained model ever is: what is timed is the fastest engine all the
    same.
    """
    loaded = LoadedModel(model, 0.0, limits=limits)  # type: ignore[arg-type]
    decoding = DecodingConfig(max_new_tokens=new)
    suffixes = work.suffixes if is_tried else ()
    if pays(model, len(work.prefix) + sum(len(suffix) + new for suffix in work.suffixes)):  # type: ignore[arg-type]
        fuse(model)  # type: ignore[arg-type]
    return Engine(loaded, Tokenizer(), work.prefix, decoding, (), suffixes=suffixes)  # type: ignore[arg-type]


def held() -> str:
    """GB that torch has on each GPU: at the peak, and reserved."""
    gpus = range(torch.cuda.device_count())
    peaks = [f"{torch.cuda.max_memory_allocated(gpu) / 1e9:.2f}" for gpu in gpus]
    reserved = [f"{torch.cuda.memory_reserved(gpu) / 1e9:.2f}" for gpu in gpus]
    return f"peaks {' '.join(peaks)}, reserved {' '.join(reserved)}"


def first_batch(engine: Engine, work: Workload, count: int) -> list[Generation]:
    """The answers to the first questions, which are the longest."""
    found = engine.answer(work.suffixes[:count], [str(index) for index in range(count)])
    assert found is not None, "memory ran out"
    return [greedy for (greedy,) in found]


def answer_all(found: Plan, model: torch.nn.Module, work: Workload, new: int) -> int:
    """Answer everything in the plan's batches; returns the tokens that were generated."""
    engine, tokens = engine_of(model, work, new, found.limits), 0
    pending = engine.lay_out({index: len(suffix) for index, suffix in enumerate(work.suffixes)})
    while pending:
        batch = pending.pop(0)
        answers = engine.answer([work.suffixes[index] for index in batch], [str(index) for index in batch])
        if answers is None:
            console.print(f"  memory ran out with {len(batch)} questions; halved; {held()}")
            pending[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            continue
        tokens += sum(greedy.steps for (greedy,) in answers)
    return tokens


def answer(
    found: Plan, model: torch.nn.Module, work: Workload, asked: Asked, alike: Plan | None = None
) -> Measured:
    """Answer everything in the plan's batches, and the first batch once more as the plan ``alike`` would.

    Before it the engine is checked, as in a cell, if ``asked.is_checked``.
    """
    gpus, tokens = range(torch.cuda.device_count()), 0
    tried: list[Engine] = []
    check_s = seconds(
        lambda: tried.append(engine_of(model, work, asked.new, found.limits, is_tried=asked.is_checked))
    )
    console.print(
        f"{asked.name}, {len(found.placement.gpus)} cards: {tried.pop().report.sentence()} ({check_s:.1f} s)"
    )
    gc.collect()
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)

    def run() -> None:
        nonlocal tokens
        tokens = answer_all(found, model, work, asked.new)

    read_s = seconds(run)
    measured = Measured(read_s, check_s, tokens)
    console.print(f"  {measured.read_s:.1f} s, {held()}")
    measured.peaks = {gpu: torch.cuda.max_memory_allocated(gpu) / 1e9 for gpu in gpus}
    limits, count = of_first(alike or found, work, FIRST)
    measured.first = first_batch(engine_of(model, work, asked.new, limits), work, count)
    return measured


def of_first(found: Plan, work: Workload, most: int) -> tuple[Limits, int]:
    """The limits by which any placement reads a plan's first questions in the plan's own passes, and their number."""
    batch = work.suffixes[: min(found.batch_size, most)]
    placement = found.placement
    tokens = sum(map(len, batch)) + len(work.prefix)
    cut = pass_tokens(
        tokens,
        found.limits.pass_tokens,
        stages=placement.stages,
        abreast=placement.abreast,
        longest=len(batch[0]),
    )
    return replace(found.limits, pass_tokens=cut), len(batch)


def busy_shares(found: Plan, model: torch.nn.Module, work: Workload, asked: Asked) -> dict[str, str]:
    """How busy cards and links are while all questions are read, and while they are answered."""
    if not torch.cuda.is_available():
        return {}
    used = len(found.placement.gpus)
    prompts = busy(lambda: answer_all(found, model, work, 1), used)
    before = streamed_bytes(model)
    whole = busy(lambda: answer_all(found, model, work, asked.new), used, least_s=0)
    after, steps_s = streamed_bytes(model), whole[0] - prompts[0]
    batches = math.ceil(asked.questions / found.batch_size)
    return {
        "prompts s": f"{prompts[0]:.1f}",
        "busy reading": " ".join(f"{share:.0%}" for share in prompts[1]),
        "busy decoding": " ".join(f"{share:.0%}" for share in of_the_rest(whole, prompts)),
        "a step": f"{steps_s / batches / (asked.new - 1) * 1e3:.0f} ms",
        "links over both, GB/s": " ".join(
            f"{(after[gpu] - before[gpu]) / whole[0] / 1e9:.0f}" for gpu in after
        ),
    }


def stock_s(shape: str, parts: RandomParts, work: Workload, gpus: int) -> float:
    """Seconds of stock ``generate`` for all questions: left-padded, blocks spread evenly by accelerate, cards whole."""
    of_shape = config(shape)
    placement = spread(of_shape, gpus, for_steps=False)
    model = assemble(of_shape, placement, parts, DTYPE)
    for module in model.modules():  # ours
        module._forward_pre_hooks.clear()
        module._forward_hooks.clear()
    if torch.cuda.is_available():
        from accelerate import dispatch_model

        ends = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.norm": gpus - 1, "lm_head": gpus - 1}
        layers = {f"model.layers.{index}": gpu for index, gpu in enumerate(placement.blocks)}
        dispatch_model(model, device_map=ends | layers)
    few = min(STOCK_ROWS, len(work.suffixes))
    stock(model, replace(work, new_tokens=2), 1, 1)
    return seconds(lambda: stock(model, work, few, 1)) * len(work.suffixes) / few


def cap(gpus: int, gigabytes: float | None) -> None:
    """Let torch hold no more than so much on each GPU; None: all of it."""
    gc.collect()
    for gpu in range(gpus if torch.cuda.is_available() else 0):
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(gpu).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if gigabytes is None else gigabytes * 1e9 / total, gpu)


def on_one_card(
    shape: str, parts: RandomParts, asked_of: list[Asked], works: dict[str, Workload], plans: dict[str, Plan]
) -> dict[str, Measured]:
    """What one whole card takes for each dataset, the first questions in the passes of the small cards' plan.

    The shortest dataset first: a long reading fuses a model's kernels, and that stays.
    """
    found: dict[str, Measured] = {}
    model, held = None, None
    for asked in sorted(asked_of, key=lambda asked: asked.shared + sum(asked.own)):
        whole = planned(shape, asked, 1, 76.0)
        if held != whole.placement:
            model = None
            gc.collect()
            model, held = assemble(config(shape), whole.placement, parts, DTYPE), whole.placement
        found[asked.name] = answer(whole, model, works[asked.name], asked, plans[asked.name])
    return found


def column(
    found: Plan, work: Workload, built_s: float, many: Measured, one: Measured | None
) -> dict[str, str]:
    """A cell's numbers by name, but for how busy the cards are."""
    gpus, planned_s = found.placement.gpus, found.duration.total_s
    equal = [a == b for a, b in zip(one.first, many.first, strict=True)] if one else []
    return {
        "blocks, streamed": f"{found.blocks}, {len(found.placement.streamed)}",
        "passes abreast, stages": f"{found.placement.abreast}, {found.placement.stages}",
        "batch, tokens a pass": f"{found.batch_size}, {of_first(found, work, found.batch_size)[0].pass_tokens}",
        "built s, checked s": f"{built_s:.0f}, {many.check_s:.1f}",
        "read s": f"{many.read_s:.1f}",
        "planned": f"{planned_s:.1f} ({many.read_s / planned_s - 1:+.0%})",
        "tokens/s": f"{many.tokens / many.read_s:.0f}",
        "GPU-hours": f"{many.read_s * len(gpus) / 3600:.4f}",
        "peaks GB": " ".join(f"{many.peaks[gpu]:.2f}" for gpu in gpus if gpu in many.peaks),
        "planned GB": " ".join(f"{found.loads[gpu].total / 1e9:.2f}" for gpu in gpus),
        "one card of 80 GB: s": f"{one.read_s:.1f}" if one else "",
        "equal answers, bit for bit": f"{sum(equal)} of {len(equal)}" if one else "",
    }


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
    parser.add_argument(
        "--stock", nargs="*", default=[], help="models that answer by stock generate too, squad alone"
    )
    parser.add_argument(
        "--unchecked", action="store_true", help="leave out what a session checks of its engine"
    )
    arguments = parser.parse_args()
    gpus, gigabytes = arguments.gpus, arguments.gb
    console.print(f"{gpus} cards of {gigabytes} GB")
    cells = [
        (shape, replace(asked, is_checked=not arguments.unchecked))
        for shape, asked in PRESETS[arguments.preset]
        if shape in (arguments.models or [shape])
    ]
    columns: dict[str, dict[str, str]] = {}
    for shape in dict.fromkeys(shape for shape, _ in cells):
        of_shape = config(shape)
        parts = RandomParts(of_shape, DTYPE, NF4)
        asked_of = [asked for other, asked in cells if other == shape]
        works = {
            asked.name: Workload.draw(
                of_shape.vocab_size, asked.questions, asked.shared, asked.own, asked.new
            )
            for asked in asked_of
        }
        plans = {asked.name: planned(shape, asked, gpus, gigabytes) for asked in asked_of}
        cap(gpus, None)
        by_stock: dict[str, str] = {}
        if shape in arguments.stock:
            first = asked_of[0].name
            by_stock[first] = f"{stock_s(shape, parts, works[first], gpus):.0f}"
            console.print(f"{shape}, stock: {by_stock[first]} s")
            cap(gpus, None)
        on_one = on_one_card(shape, parts, asked_of, works, plans) if shape in arguments.whole else {}
        for asked in asked_of:
            found, work = plans[asked.name], works[asked.name]
            cap(gpus, None)
            started = time.perf_counter()
            model = assemble(of_shape, found.placement, parts, DTYPE)
            built_s = time.perf_counter() - started
            cap(gpus, gigabytes)
            many = answer(found, model, work, asked)
            columns[f"{shape} {asked.name}"] = {
                **column(found, work, built_s, many, on_one.get(asked.name)),
                "stock and accelerate: s": by_stock.get(asked.name, ""),
            }
            print_table(columns)
            columns[f"{shape} {asked.name}"] |= busy_shares(found, model, work, asked)
            del model
            print_table(columns)


def print_table(columns: dict[str, dict[str, str]]) -> None:
    """A column a cell."""
    table = Table("", *columns)
    for name in next(iter(columns.values())):
        table.add_row(name, *(values.get(name, "") for values in columns.values()))
    console.print(table)


if __name__ == "__main__":
    main()
