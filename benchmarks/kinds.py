"""Where the seconds of answers go, by kind of kernel.

    python benchmarks/kinds.py --cases 1b 8b 70b        one GPU of 80 GB

The prompts of ``against_vllm.py``. Kernels are those of the profiler, which slows the host down; ``idle`` is what is
left of a run without it.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from against_vllm import CASES, Case, _answer, _build
from answers import Workload, seconds
from random_models import config

KINDS = {
    "attention": ("packed_kernel", "grown_kernel", "flash", "fmha", "softmax"),
    "dequantization": ("dequant", "kquant"),
    "products": ("gemm", "nvjet", "cutlass", "cublas", "splitk"),
    "norms, rotations, gates": ("rms", "rope", "swiglu", "silu"),
    "copies and the rest": ("",),
}
console = Console(width=140, highlight=False)


def by_kind(call: Callable[[], object]) -> Counter[str]:
    """Seconds of kernels by kind."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds(call)
    spent: Counter[str] = Counter()
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            name = event.name.lower()
            kind = next(kind for kind, parts in KINDS.items() if any(part in name for part in parts))
            spent[kind] += event.self_device_time_total / 1e6
            if kind == "copies and the rest":
                spent[f"  {event.name[:90]}"] += event.self_device_time_total / 1e6
    return spent


def main() -> None:
    """Profile some cases and print a table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["1b", "8b"])
    parser.add_argument("--new", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rest", action="store_true", help="name the kernels of the last kind")
    arguments = parser.parse_args()
    for name in arguments.cases:
        print_case(CASES[name], name, arguments.new, arguments.rest)


def print_case(case: Case, name: str, asked: list[int], rest: bool) -> None:
    """The table of a case."""
    model = _build(case)
    table = Table(title=f"{name}, {torch.cuda.get_device_name()}")
    for column in ("new", "seconds", "idle", *KINDS):
        table.add_column(column, justify="right")
    for new in asked:
        work = Workload.draw(config(case.shape).vocab_size, case.questions, case.shared, case.own, new)
        call = partial(_answer, model, work, 0, case.chunk)
        took = statistics.median([seconds(call) for _ in range(4)][1:])
        spent = by_kind(call)
        total = sum(spent[kind] for kind in KINDS)
        table.add_row(
            str(new), f"{took:.3f}", f"{took - total:.3f}", *(f"{spent[kind]:.3f}" for kind in KINDS)
        )
    console.print(table)
    if rest:
        for kernel, each in spent.most_common():
            if kernel.startswith("  ") and each > 0.001:
                console.print(f"{each:.4f}{kernel}", markup=False)


if __name__ == "__main__":
    main()
