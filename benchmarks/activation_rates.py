"""How near reading activations comes to what a GPU can multiply: one deep layer of a 70B, all layers of small models.

    python benchmarks/activation_rates.py --preset rehearsal         a tiny model on the CPU, in seconds
    python benchmarks/activation_rates.py                            one GPU of 80 GB

Random weights of true shapes in bf16; random tokens of the lengths of NTML's conversations (250 to 450) and of
statements (12 to 36), in passes as long as a plan has them. The bound is the products of the blocks at the rate of a
large product in the same run; kernels, of the profiler, are what the GPU does at all: the rest waits for the host.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections import Counter

import torch
from rich.console import Console
from rich.table import Table

from answers import matmul_rate, seconds
from kinds import KINDS, by_kind
from probegrid.inference.residual import ResidualReader
from probegrid.models.build import assemble
from probegrid.models.fusing import fuse
from probegrid.planning.placement import Placement
from probegrid.planning.workload import longest_pass
from probegrid.readings.batches import lay_out
from random_models import RandomParts, config

PRESETS = {
    "gpu": [
        ("llama70b", 22, [22], 200, (250, 450)),
        ("llama8b", 32, range(33), 3000, (12, 36)),
        ("llama1b", 16, range(17), 3000, (12, 36)),
        ("smollm135m", 30, range(31), 3000, (12, 36)),
    ],
    "rehearsal": [("tiny", 8, range(9), 40, (5, 9))],
}


def main() -> None:
    """Read each model's activations and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="gpu")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    dtype, device = (torch.bfloat16, 0) if on_gpu else (torch.float32, "cpu")
    table = Table(title=torch.cuda.get_device_name() if on_gpu else "CPU")
    for column in (
        "model",
        "layers",
        "rows",
        "tokens",
        "a pass",
        "median s",
        "kernels s",
        "bound s",
        "of the bound",
    ):
        table.add_column(column, justify="right")
    for shape, blocks, layers, rows, lengths in PRESETS[arguments.preset]:
        of_shape = config(shape)
        placement = Placement(device, (device,) * blocks, (), None)
        model = assemble(of_shape, placement, RandomParts(of_shape, dtype), dtype)
        draw = torch.Generator().manual_seed(1)
        counts = torch.randint(lengths[0], lengths[1] + 1, (rows,), generator=draw).tolist()
        texts = [torch.randint(3, of_shape.vocab_size, (count,), generator=draw).tolist() for count in counts]
        parameters = sum(p.numel() for p in model.layers.parameters() if p.dim() == 2)
        pass_tokens = longest_pass("cuda" if on_gpu else "cpu", 2 * parameters / blocks)
        batches = lay_out(counts, pass_tokens)
        fuse(model)
        reader = ResidualReader(model, list(layers))

        def read(reader: ResidualReader = reader, batches: list = batches, texts: list = texts) -> None:
            for batch in batches:
                reader.read(
                    [texts[index] for index in batch],
                    [[(len(texts[index]) - 1, len(texts[index]))] for index in batch],
                )

        read()
        median = statistics.median(seconds(read) for _ in range(arguments.repeats))
        spent = by_kind(read) if on_gpu else Counter()
        kernels = sum(spent[kind] for kind in KINDS)
        bound = 2 * sum(counts) * parameters / (matmul_rate() if on_gpu else 1e11)
        table.add_row(
            shape, str(len(reader.layers)), str(rows), str(sum(counts)), str(pass_tokens), f"{median:.3f}",
            f"{kernels:.3f}", f"{bound:.3f}", f"{bound / median:.0%}",
        )  # fmt: skip
        Console(width=120).print(table)
        del model, reader, read
        gc.collect()


if __name__ == "__main__":
    main()
