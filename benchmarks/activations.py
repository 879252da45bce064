"""A layer's activations: our truncated loading and batched collection against transformers and TransformerLens.

    python benchmarks/activations.py                                     a random 100M model on the CPU
    python benchmarks/activations.py --lens-python ENV/bin/python        TransformerLens too, in its own environment
    python benchmarks/activations.py --preset fits                       the fit of probes alone, in CPU seconds
    python benchmarks/activations.py --preset h200 --conversations FILE  layer 22 of a 70B from 22 blocks, one GPU
    python benchmarks/activations.py --preset h200x2 --conversations FILE --ours-seconds S   the usual way, two GPUs
    python benchmarks/activations.py --preset rehearsal --conversations FILE   both of these on the CPU, tiny

On the CPU every method runs in a process of its own, in turn; medians and ratios are printed. Then the fit of all
layers and penalties in one computation against a loop of scikit-learn's. FILE holds NTML conversations.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from activations_70b import H200, REHEARSAL, first_blocks, usual_way
from probegrid.probes.fitting.newton import fit_logistic
from probegrid.probes.logistic import Logistic
from random_models import config, write_checkpoint

SHAPE, LAYER, POSITIONS = "100m", 4, 6
LENGTHS = (100, 180)
SAMPLED = 6
"""The statements of one in so many passages are read one pass each; the seconds are scaled to all."""
METHODS = {
    "ours": f"ours: {LAYER} blocks, batches, bf16 on disk",
    "by_conversation": "transformers, a pass a conversation, all states kept",
    "by_statement": "transformers, a pass a statement, all states, one kept",
    "lens": "TransformerLens, a pass a conversation, names_filter",
    "lens_stopped": "the same with stop_at_layer",
}
FIT_SHAPES = ((12, 600, 768), (4, 1800, 576), (2, 1800, 4096))
"""Layers, examples, width: a 100M model as above; some layers of a 135M and of an 8B with the statements of 500
conversations."""
console = Console(width=130, highlight=False)


@dataclass(frozen=True)
class Run:
    """What one process measured."""

    load_s: float
    read_s: float
    """Scaled to all statements."""
    peak_bytes: int
    """Most memory held, above what its imports held."""
    stored_bytes: int
    """Scaled likewise."""
    rows: torch.Tensor
    """float32 [n, d]."""


def main() -> None:
    """Run a preset and print what it found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("cpu", "fits", "h200", "h200x2", "rehearsal"), default="cpu")
    parser.add_argument("--lens-python", help="interpreter of an environment with transformer_lens")
    parser.add_argument("--conversations", type=Path, help="NTML records, for the presets of GPUs")
    parser.add_argument("--scratch", type=Path, help="folder for temporary checkpoints and stores")
    parser.add_argument("--ours-seconds", type=float, help="seconds of reading that --preset h200 printed")
    parser.add_argument("--passages", type=int, default=60, help="conversations of --preset cpu")
    parser.add_argument("--repeats", type=int, default=3, help="of --preset cpu and fits")
    arguments = parser.parse_args()
    if arguments.preset == "cpu":
        compare_readings(arguments)
    if arguments.preset in ("cpu", "fits"):
        for shape in FIT_SHAPES:
            compare_fits(shape, arguments.repeats)
        return
    if arguments.conversations is None:
        parser.error(f"--preset {arguments.preset} needs --conversations FILE")
    setting = REHEARSAL if arguments.preset == "rehearsal" else H200
    ours_s = arguments.ours_seconds
    if arguments.preset != "h200x2":
        ours_s = first_blocks(setting, arguments.conversations, arguments.scratch)
    if arguments.preset != "h200":
        usual_way(setting, arguments.conversations, arguments.scratch, ours_s)


def compare_readings(arguments: argparse.Namespace) -> None:
    """Read one layer by every method, each time in a new process, and print a table."""
    lens_python = arguments.lens_python
    pythons = {name: lens_python if name.startswith("lens") else sys.executable for name in METHODS}
    methods = [name for name, python in pythons.items() if python]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as temporary:
        folder, workload = Path(temporary), Path(temporary) / "workload.json"
        (folder / "checkpoint").mkdir()
        write_checkpoint(config(SHAPE), folder / "checkpoint", device="cpu", dtype=torch.float32)
        work = draw_workload(config(SHAPE).vocab_size, arguments.passages)
        workload.write_text(json.dumps(work))
        runs: dict[str, list[Run]] = {name: [] for name in methods}
        for repeat in range(arguments.repeats):
            for name in methods:
                runs[name].append(run(name, str(pythons[name]), folder, workload, repeat))
    report(runs, arguments.passages, work["sample"])
    if lens_python is None:
        console.print("TransformerLens was not measured: give --lens-python of an environment that has it.")


def draw_workload(vocabulary: int, passages: int) -> dict[str, Any]:
    """Passages of random tokens with positions spread over them."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(LENGTHS[0], LENGTHS[1] + 1, passages).tolist()
    return {
        "passages": [draw.integers(3, vocabulary, length).tolist() for length in lengths],
        "positions": [
            np.linspace(length // 3, length - 1, POSITIONS, dtype=int).tolist() for length in lengths
        ],
        "sample": max(1, passages // SAMPLED),
    }


def run(name: str, python: str, folder: Path, workload: Path, repeat: int) -> Run:
    """One method in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    out = folder / f"{name}-{repeat}"
    script = Path(__file__).with_name("activation_methods.py")
    command = [python, script, name, folder / "checkpoint", workload, LAYER, out]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    result = json.loads((out / "result.json").read_text())
    scale = result["passages"] / result["read_passages"]
    return Run(
        result["load_s"], result["read_s"] * scale, result["peak_bytes"], round(result["stored_bytes"] * scale),
        torch.load(out / "rows.pt"),
    )  # fmt: skip


def report(runs: dict[str, list[Run]], passages: int, sample: int) -> None:
    """Print medians and ratios to ours."""
    low, high = LENGTHS
    table = Table(
        title=f"layer {LAYER} of a random {SHAPE} model in float32 on {torch.get_num_threads()} threads: {passages} "
        f"conversations of {low}-{high} tokens, {POSITIONS} statements each; medians of {len(runs['ours'])}"
    )
    for column in ("method", "load s", "read s", "slower", "peak MB", "stored MB", "difference"):
        table.add_column(column, justify="left" if column == "method" else "right")
    best = statistics.median(one.read_s for one in runs["ours"])
    exact = runs["by_conversation"][0].rows
    for name, measured in runs.items():
        load_s, read_s, peak, stored = (
            statistics.median(getattr(one, field) for one in measured)
            for field in ("load_s", "read_s", "peak_bytes", "stored_bytes")
        )
        rows = measured[0].rows
        difference = float((rows - exact[: len(rows)]).abs().max() / exact.abs().max())
        table.add_row(
            METHODS[name], f"{load_s:.2f}", f"{read_s:.2f}", f"{read_s / best:.1f}", f"{peak / 1e6:.0f}",
            f"{stored / 1e6:.2f}", f"{difference:.1e}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"peak: resident memory above the imports'; a pass a statement: measured on {sample * POSITIONS} statements, "
        "its seconds and bytes scaled to all; difference: largest, relative to the largest value (ours rounds to bf16)"
    )


def compare_fits(shape: tuple[int, int, int], repeats: int) -> None:
    """The fit of all layers and penalties against a loop of scikit-learn's over them, by the process's CPU seconds."""
    layers, examples, width = shape
    penalties = Logistic().C
    x, labels = draw_features(shape)

    def ours() -> np.ndarray:
        return fit_logistic(x, torch.from_numpy(labels), penalties)[0].numpy()

    def loop(dtype: type, **settings: Any) -> np.ndarray:
        fits = [
            [
                LogisticRegression(C=penalty, **settings).fit(of_layer, labels).coef_[0]
                for penalty in penalties
            ]
            for of_layer in x.numpy().astype(dtype)
        ]
        return np.array(fits)

    methods = {
        "ours": ours,
        "scikit-learn, float32, its own tolerance": lambda: loop(np.float32, max_iter=1000),
        "scikit-learn, float64, tol=1e-8": lambda: loop(np.float64, max_iter=10_000, tol=1e-8),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    weights: dict[str, np.ndarray] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(repeats):
            for name, fit in methods.items():
                started = time.process_time()
                weights[name] = fit()
                times[name].append(time.process_time() - started)
    table = Table(
        title=f"logistic regression: {layers} layers x {examples} examples x {width}, {len(penalties)} penalties "
        f"each; {torch.get_num_threads()} threads, medians of {repeats}"
    )
    for column in ("method", "CPU seconds", "slower", "weight difference from ours"):
        table.add_column(column, justify="left" if column == "method" else "right")
    mine = "ours"
    best = statistics.median(times[mine])
    for name, values in times.items():
        seconds = statistics.median(values)
        difference = np.abs(weights[name] - weights[mine]).max()
        table.add_row(name, f"{seconds:.2f}", f"{seconds / best:.2f}", f"{difference:.1e}")
    console.print(table)
    console.print(f"the largest weight is {np.abs(weights[mine]).max():.2f}")


def draw_features(shape: tuple[int, int, int]) -> tuple[torch.Tensor, np.ndarray]:
    """Standardized features whose variance falls off as activations' does, and labels that some of them tell."""
    layers, examples, width = shape
    draw = torch.Generator().manual_seed(2)
    spread = torch.arange(1, width + 1) ** -0.7
    mixing = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
    hidden = torch.randn(layers, examples, width, generator=draw)
    labels = (hidden[..., :8].sum((0, 2)) + 5 * torch.randn(examples, generator=draw)) > 0
    x = (hidden * spread) @ mixing
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), labels.numpy()


if __name__ == "__main__":
    main()
