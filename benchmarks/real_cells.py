"""Cells as users run them, on checkpoints of true shapes with random weights: what was planned, what was measured.

    python benchmarks/real_cells.py --preset rehearsal                       small shapes on the CPU
    python benchmarks/real_cells.py --preset one_gpu --squad FILE --ntml FILE       one GPU of 80 GB or more
    python benchmarks/real_cells.py --preset two_gpus --squad FILE                  two of them
    python benchmarks/real_cells.py --preset small_gpus --squad FILE                two GPUs, capped at 10.5 GB

Weights must agree within 1%, peaks within 10%. A checkpoint is written to disk, read by `probegrid.run`, and removed.
The whole 70B in bfloat16 is written as sparse files of zeros, so that it needs no 141 GB of disk; its numbers mean
nothing either way, its bytes and operations are the same.
"""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

import probegrid
from probegrid.models.fingerprint import WEIGHTS_INDEX
from probegrid.schema import QuantizationMethod
from random_models import RandomParts, config, write_checkpoint

DTYPE = torch.bfloat16
NONE, NF4 = QuantizationMethod.none, QuantizationMethod.nf4
console = Console(width=140, highlight=False)
Writer = Callable[[Path, str], int]


@dataclass(frozen=True)
class RealCell:
    """A checkpoint and what is asked of it."""

    name: str
    write: Writer
    overrides: tuple[str, ...]
    cap_gb: float | None = None
    """Let torch hold no more on each GPU, as if there were no more."""


def random_checkpoint(shape: str, method: QuantizationMethod, blocks: int | None = None) -> Writer:
    """Writes random weights, or the files of the first blocks of them."""
    return lambda folder, device: write_checkpoint(
        config(shape), folder, device=device, dtype=DTYPE, method=method, blocks=blocks
    )


def sparse_checkpoint(shape: str) -> Writer:
    """Writes zeros that take no room: every block a file with a header and a hole."""

    def write(folder: Path, device: str) -> int:
        of_shape = config(shape)
        write_checkpoint(of_shape, folder, device=device, dtype=DTYPE, blocks=0, blocks_per_file=1)
        parts = RandomParts(of_shape, DTYPE)
        files = json.loads((folder / WEIGHTS_INDEX).read_text())["weight_map"]
        total = 0
        for file in sorted(set(files.values())):
            shapes = {name: parts.shape(name) for name, holder in files.items() if holder == file}
            total += _write_hole(folder / file, shapes)
        return total

    return write


def _write_hole(file: Path, shapes: dict[str, torch.Size]) -> int:
    """A safetensors file of zeros: 8 bytes of the header's length, the header, and nothing written behind it."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + shape.numel() * DTYPE.itemsize
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return end


def cells(preset: str, squad: str, ntml: str) -> list[RealCell]:
    """The cells of a preset."""
    asked = (
        "dataset=squad",
        f"dataset.path={squad}",
        "prompt.use_context=true",
        "decoding.max_new_tokens=16",
    )
    lies = ("dataset=ntml", f"dataset.path={ntml}", "probe=logistic")
    capped = ("device_map.gpus=2", "device_map.gpu_memory_gb=10.5", "device_map.overhead_gb=0.5")
    short = ("dataset.num_samples=20", "decoding.max_new_tokens=4", "prompt.num_few_shot=1")
    return {
        "rehearsal": [
            RealCell("NF4, answers", random_checkpoint("small", NF4), ("dataset=facts", *short, "quantization=nf4")),
            RealCell("sparse zeros, answers", sparse_checkpoint("small"), ("dataset=facts", *short)),
            RealCell(
                "layer 2", random_checkpoint("small", NONE, 2),
                ("dataset=facts_statements", "probe=logistic", "probe.layers=[2]"),
            ),
        ],
        "one_gpu": [
            RealCell(
                "70B in NF4, SQuAD", random_checkpoint("llama70b", NF4),
                (*asked, "quantization=nf4", "dataset.num_samples=200"),
            ),
            RealCell(
                "70B in bf16, layer 22, NTML", random_checkpoint("llama70b", NONE, 22), (*lies, "probe.layers=[22]")
            ),
            RealCell("7B in bf16, SQuAD", random_checkpoint("qwen7b", NONE), (*asked, "dataset.num_samples=400")),
        ],
        "small_model": [
            RealCell("135M in bf16, SQuAD", random_checkpoint("smollm135m", NONE), (*asked, "dataset.num_samples=400")),
            RealCell(
                "135M in bf16, SQuAD, 10 samples", random_checkpoint("smollm135m", NONE),
                (*asked, "dataset.num_samples=400", "probe=semantic_entropy", "probe.entailment=exact"),
            ),
        ],
        "two_gpus": [
            RealCell(
                "70B in bf16, SQuAD", sparse_checkpoint("llama70b"),
                (*asked, "device_map=2xh100", "dataset.num_samples=100"),
            ),
        ],
        "small_gpus": [
            RealCell(
                "123B in NF4, SQuAD", random_checkpoint("mistral_large", NF4),
                (*asked, "quantization=nf4", "dataset.num_samples=48", *capped), cap_gb=10.5,
            ),
        ],
    }[preset]  # fmt: skip


def run(cell: RealCell, scratch: Path | None) -> None:
    """Write the checkpoint, run the cell in a folder of its own, print both numbers of each pair."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        folder = Path(temporary)
        (folder / "checkpoint").mkdir()
        started = time.perf_counter()
        written = cell.write(folder / "checkpoint", device)
        console.print(
            f"[b]{cell.name}[/b]: wrote {written / 1e9:.2f} GB in {time.perf_counter() - started:.0f} s"
        )
        for gpu in range(torch.cuda.device_count() if cell.cap_gb else 0):
            total = torch.cuda.get_device_properties(gpu).total_memory
            torch.cuda.set_per_process_memory_fraction(cell.cap_gb * 1e9 / total, gpu)
        places = (f"store_dir={folder}/store", f"results_dir={folder}/results", "tracking=none")
        result = probegrid.run(["model=custom", f"model.path={folder}/checkpoint", *places, *cell.overrides])
        planned = json.loads((result.folder / "result.json").read_text())["plan"]
        metrics = result.metrics
        for part, load in planned["loads"].items():
            peak = metrics.get(f"peak_gpu_gb_{part}", metrics["peak_ram_gb"])
            console.print(
                f"  {part:>3}: peak {peak:.2f} GB, planned {load['total'] / 1e9:.2f} "
                f"({load['total'] / 1e9 / peak - 1:+.1%}), {load['weights'] / 1e9:.2f} of it weights"
            )
        seconds = planned["duration"]
        console.print(
            f"  weights planned {planned['weight_bytes'] / 1e9:.3f} GB; batch {planned['batch_size']}, passes of "
            f"{planned['limits']['pass_tokens']} tokens\n"
            f"  load {metrics['load_s']:.1f} s (planned {planned['load_s']:.1f}); read {metrics['read_s']:.1f} s "
            f"(planned {sum(seconds.values()):.1f}); {metrics['tokens_per_s']:.0f} tokens/s"
        )


def main() -> None:
    """Run the cells of a preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset",
        choices=("rehearsal", "one_gpu", "small_model", "two_gpus", "small_gpus"),
        default="rehearsal",
    )
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--squad", default="", help="SQuAD's JSON")
    parser.add_argument("--ntml", default="", help="NTML's JSON lines")
    parser.add_argument("--scratch", type=Path, help="where checkpoints are written; the system's own place")
    options = parser.parse_args()
    for cell in cells(options.preset, options.squad, options.ntml):
        if options.only in cell.name:
            run(cell, options.scratch)


if __name__ == "__main__":
    main()
