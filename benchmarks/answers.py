"""Greedy answers to questions that share a prompt: our engine, stock ``generate`` one by one, and in padded batches.

    python benchmarks/answers.py                                     a random 100M model on the CPU
    python benchmarks/answers.py --preset h200                       Llama-70B's shape in NF4 on one GPU
    python benchmarks/answers.py --peer vllm [--cases 1b 8b 70b]     beside vLLM on one GPU, where it is installed

The methods alternate in one process; medians and ratios are printed. With ``--sample`` the stock methods answer only so
many questions (batches) and their seconds are scaled to all of them, which the table says.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from probegrid.inference.generation import Generation, Sampling, generate
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.inference.stopping import StopRule
from random_models import random_model, random_nf4_model

PRESETS = {
    "cpu": dict(shape="100m", device="cpu", quantization="none", questions=64, shared=600, own=(20, 60), new=16,
                padded_batch=32, ours_batch=64, chunk=1024, sample=(12, 1), repeats=3),
    "h200": dict(shape="llama70b", device="cuda", quantization="nf4", questions=400, shared=900, own=(130, 260), new=16,
                 padded_batch=32, ours_batch=400, chunk=16384, sample=(3, 1), repeats=3),
    "rehearsal": dict(shape="100m", device="cpu", quantization="nf4", questions=12, shared=40, own=(5, 9), new=4,
                      padded_batch=4, ours_batch=12, chunk=64, sample=(2, 1), repeats=1),
}  # fmt: skip


class NoStop:
    """A tokenizer for random ids: no text, so no stop."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Nothing."""
        return ""


@dataclass
class Workload:
    """Random prompts that begin alike."""

    prefix: list[int]
    suffixes: list[list[int]]
    new_tokens: int

    @classmethod
    def draw(
        cls, vocabulary: int, questions: int, shared: int, own: tuple[int, int], new_tokens: int
    ) -> Workload:
        """Draw prompts of ``shared`` common tokens and a uniform number of own ones."""
        draw = torch.Generator().manual_seed(1)

        def tokens(count: int) -> list[int]:
            return torch.randint(3, vocabulary, (count,), generator=draw).tolist()

        lengths = torch.randint(own[0], own[1] + 1, (questions,), generator=draw).tolist()
        suffixes = sorted((tokens(length) for length in lengths), key=len, reverse=True)
        return cls(tokens(shared), suffixes, new_tokens)


def ours(model: PreTrainedModel, work: Workload, rows: int, chunk: int) -> list[Generation]:
    """Shared prefix, packed prefill, rows in batches."""
    decoder = SharedPrefixDecoder(model, work.prefix, chunk_tokens=chunk)
    rule = StopRule(NoStop(), [], [])
    answers: list[Generation] = []
    for start in range(0, len(work.suffixes), rows):
        batch = work.suffixes[start : start + rows]
        found = generate(
            decoder, batch, [""] * len(batch), rule, max_new_tokens=work.new_tokens, sampling=Sampling()
        )
        answers += [generations[0] for generations in found]
    return answers


def stock(model: PreTrainedModel, work: Workload, rows: int, batches: int) -> list[list[int]]:
    """Stock ``generate`` on left-padded batches of whole prompts, with the log-probabilities of its raw logits.

    Only ``batches`` of the batches are run, spread evenly over the lengths of the prompts.
    """
    model.set_attn_implementation("sdpa")
    device = model.get_input_embeddings().weight.device
    answers: list[list[int]] = []
    starts = list(range(0, len(work.suffixes), rows))
    for number in range(batches):
        start = starts[(2 * number + 1) * len(starts) // (2 * batches)]
        prompts = [work.prefix + suffix for suffix in work.suffixes[start : start + rows]]
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device
        )
        output = model.generate(
            tokens, attention_mask=mask, max_new_tokens=work.new_tokens, do_sample=False, eos_token_id=None,
            pad_token_id=0, return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        torch.stack(output.logits, 1).float().log_softmax(-1)
        answers += output.sequences[:, width:].tolist()
    return answers


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of a call, the device's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Run a preset and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--ours-batch", type=int)
    parser.add_argument("--chunk", type=int)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--no-stock", action="store_true", help="time our engine alone")
    parser.add_argument("--peer", choices=["vllm"], help="time another engine beside ours")
    parser.add_argument("--cases", nargs="+", default=["1b", "8b", "70b"], help="models to compare on")
    parser.add_argument("--new", nargs="+", type=int, default=[], help="these lengths of answers alone")
    arguments = parser.parse_args()
    if arguments.peer:
        import against_vllm

        against_vllm.run(arguments.cases, arguments.new, arguments.repeats or 3, Console(width=140))
        return
    preset = PRESETS[arguments.preset] | {
        name: value
        for name in ("ours_batch", "chunk", "repeats")
        if (value := getattr(arguments, name)) is not None
    }
    console = Console(width=120)
    device = preset["device"]
    if preset["quantization"] == "nf4":
        model = random_nf4_model(preset["shape"], device)
    else:
        model = random_model(preset["shape"], device, torch.float32)
    work = Workload.draw(
        model.config.vocab_size, preset["questions"], preset["shared"], preset["own"], preset["new"]
    )
    n = len(work.suffixes)
    single, batches = preset["sample"] or (n, -(-n // preset["padded_batch"]))
    padded = min(n, batches * preset["padded_batch"])
    warm_up = Workload(work.prefix, work.suffixes[:1], 2)
    ours(model, warm_up, 1, preset["chunk"])
    stock(model, warm_up, 1, 1)
    methods: dict[str, tuple[Callable[[], object], float]] = {
        "ours": (lambda: ours(model, work, preset["ours_batch"], preset["chunk"]), 1.0)
    }
    if not arguments.no_stock:
        methods |= {
            f"stock, padded batches of {preset['padded_batch']}": (
                lambda: stock(model, work, preset["padded_batch"], batches),
                n / padded,
            ),
            "stock, one by one": (lambda: stock(model, work, 1, single), n / single),
        }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(preset["repeats"]):
        for name, (call, scale) in methods.items():
            times[name].append(seconds(call) * scale)
    report(console, preset, work, times, padded, single)
    if not arguments.no_stock:
        agreement(console, model, work, preset)
    if device == "cuda":
        account(console, model, work, preset)


def report(
    console: Console, preset: dict, work: Workload, times: dict[str, list[float]], padded: int, single: int
) -> None:
    """Print medians, spreads and ratios."""
    low, high = preset["own"]
    title = (
        f"{preset['shape']} {preset['quantization']} on {preset['device']}: {len(work.suffixes)} questions, "
        f"{len(work.prefix)} shared + {low}-{high} own tokens, {work.new_tokens} new"
    )
    table = Table(title=title)
    for column in ("method", "median s", "all s", "times slower", "measured on"):
        table.add_column(column, justify="left" if column == "method" else "right")
    best = statistics.median(times["ours"])
    counts = {"ours": len(work.suffixes), "stock, one by one": single}
    for name, values in times.items():
        median = statistics.median(values)
        spread = " ".join(f"{value:.1f}" for value in values)
        table.add_row(
            name, f"{median:.1f}", spread, f"{median / best:.1f}", f"{counts.get(name, padded)} questions"
        )
    console.print(table)


def agreement(console: Console, model: PreTrainedModel, work: Workload, preset: dict) -> None:
    """Hold our log-probabilities against those that stock attention gives the same tokens, for a few questions.

    Tokens alone say little of a random model in bfloat16, whose best tokens are nearly tied.
    """
    few = Workload(work.prefix, work.suffixes[: min(8, len(work.suffixes))], work.new_tokens)
    answers = ours(model, few, preset["ours_batch"], preset["chunk"])
    same = sum(
        list(a.token_ids) == b for a, b in zip(answers, stock(model, few, 1, len(few.suffixes)), strict=True)
    )
    device = model.get_input_embeddings().weight.device
    differences: list[float] = []
    for suffix, answer in zip(few.suffixes, answers, strict=True):
        ids = torch.tensor([few.prefix + suffix + list(answer.token_ids[:-1])], device=device)
        with torch.inference_mode():
            output = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=len(answer.token_ids)
            )
        forced = output.logits[0].float().log_softmax(-1).cpu()
        picked = forced[torch.arange(len(answer.token_ids)), torch.tensor(answer.token_ids)].tolist()
        differences += [abs(one - other) for one, other in zip(picked, answer.token_logprobs, strict=True)]
    console.print(
        f"{same} of {len(answers)} answers have the tokens of stock one by one; log-probabilities of the same tokens "
        f"differ by {statistics.mean(differences):.1e} on average, {max(differences):.1e} at most"
    )


def account(console: Console, model: PreTrainedModel, work: Workload, preset: dict) -> None:
    """Say where the time of our engine goes: by phase, then by kind of kernel; and what bounds it."""
    for rows in sorted({preset["ours_batch"], preset["ours_batch"] // 2, preset["ours_batch"] // 4}):
        torch.cuda.reset_peak_memory_stats()
        decoder = SharedPrefixDecoder(model, work.prefix, chunk_tokens=preset["chunk"])
        batch = work.suffixes[:rows]
        prefill = seconds(lambda d=decoder, b=batch: d.prefill(b, room=work.new_tokens))
        step = statistics.median(seconds(lambda d=decoder, b=batch: d.step([5] * len(b))) for _ in range(5))
        own = sum(map(len, batch))
        console.print(
            f"rows {rows}: prefix {decoder.prefix_bytes / 1e9:.3f} GB; prefill of {own} tokens {prefill:.2f} s; a step "
            f"{step * 1e3:.0f} ms; peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
        )
        del decoder
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        ours(model, work, preset["ours_batch"], preset["chunk"])
        torch.cuda.synchronize()
    kinds: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for event in profile.key_averages():
        kinds[kind_of(event.key)] += event.self_device_time_total / 1e6
        names[event.key] += event.self_device_time_total / 1e6
    for kind, spent in kinds.most_common():
        console.print(f"  {spent:6.2f} s  {kind}")
    for name, spent in names.most_common(16):
        console.print(f"      {spent:6.2f} s  {name[:110]}", highlight=False)
    parameters = sum(
        module.in_features * module.out_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    )
    tokens = len(work.prefix) + sum(map(len, work.suffixes)) + len(work.suffixes) * (work.new_tokens - 1)
    rate = matmul_rate()
    console.print(
        f"bound: {tokens} tokens x 2 x {parameters / 1e9:.2f}e9 = {2 * tokens * parameters / 1e15:.2f} PFLOP at "
        f"{rate / 1e12:.0f} TFLOP/s measured = {2 * tokens * parameters / rate:.1f} s"
    )


def kind_of(kernel: str) -> str:
    """A coarse name for what a CUDA kernel does."""
    lowered = kernel.lower()
    for words, kind in (
        (("dequantize", "kdequant", "nf4"), "dequantization"),
        (("flash", "fmha"), "attention"),
        (("gemm", "nvjet", "cutlass", "xmma"), "matrix products"),
        (("memcpy", "memset"), "copies"),
    ):
        if any(word in lowered for word in words):
            return kind
    return "elementwise and the rest"


def matmul_rate() -> float:
    """FLOP/s of a large bf16 matrix product on random data."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2 * 8192**3 / statistics.median(seconds(lambda: a @ b) for _ in range(10))


if __name__ == "__main__":
    main()
