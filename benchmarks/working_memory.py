"""Working memory of one forward pass, by both readers, against what the plan counts for it.

    python benchmarks/working_memory.py --preset rehearsal       small shapes on the CPU: does it run
    python benchmarks/working_memory.py                          true shapes, a few blocks of each, on one GPU

What a pass takes beside weights and cache depends on a block's widths and not on how many blocks there are, so that
two blocks of a model tell what all of them need.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from transformers import PreTrainedModel

from probegrid.hardware.devices import Hardware
from probegrid.inference.residual import ResidualReader
from probegrid.inference.shared_prefix import SharedPrefixDecoder
from probegrid.models.build import assemble
from probegrid.planning.architecture import kv_bytes_per_token
from probegrid.planning.families import architecture_from_config
from probegrid.planning.placement import Placement
from probegrid.planning.requirements import Facts
from probegrid.planning.workload import Batch, Workload
from probegrid.schema import Architecture, Dtype, PlacementStrategy, QuantizationMethod
from random_models import RandomParts, config

SHAPES = ("qwen7b", "llama70b", "mistral_large")
BLOCKS = 2
DTYPE = torch.bfloat16
console = Console(width=120, highlight=False)


def peak_over(call: Callable[[], object]) -> int:
    """Bytes by which a call's peak passes what was held before it."""
    if not torch.cuda.is_available():
        call()
        return 0
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def passes(
    model: PreTrainedModel, architecture: Architecture, method: QuantizationMethod, rows: int, own: int
) -> Iterator[tuple[str, int, int]]:
    """Measured and planned working memory of an answer's prefill and step, and of a reading of activations."""

    def facts(workload: Workload) -> Facts:
        return Facts(
            architecture, Dtype.bfloat16, method, PlacementStrategy.single, 0.0, Hardware(), workload
        )

    prefix, tokens = list(range(3, 67)), rows * own
    decoder = SharedPrefixDecoder(model, prefix, chunk_tokens=tokens)
    suffixes = [[5 + slot % 900 for slot in range(own)] for _ in range(rows)]
    cache = rows * (own + 2) * kv_bytes_per_token(architecture, Dtype.bfloat16, BLOCKS)
    answering = facts(Workload(rows, own, len(prefix), 2))
    demand = answering.demand(Batch(rows, tokens))
    prefill = peak_over(lambda: decoder.prefill(suffixes, room=2)) - cache
    yield "answers, prefill", prefill, demand.activations + demand.logits
    yield "answers, step", peak_over(lambda: decoder.step([5] * rows)), demand.activations + demand.logits
    decoder.reset()
    reading = facts(Workload(rows, own, deepest_layer=BLOCKS))
    reader = ResidualReader(model, [BLOCKS])
    taken = peak_over(lambda: reader.read(suffixes, [[(own - 1, own)]] * rows))
    yield "activations", taken, reading.activation_bytes(Batch(rows, tokens))


def main() -> None:
    """Print a line a shape, method, number of tokens and kind of pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("gpu", "rehearsal"), default="gpu")
    rehearsal = parser.parse_args().preset == "rehearsal"
    batches = [(4, 8), (2, 16)] if rehearsal else [(16, 128), (64, 200), (16, 1000)]
    for shape in ("small",) if rehearsal else SHAPES:
        of_shape = config(shape, BLOCKS)
        architecture = architecture_from_config(of_shape.to_dict())
        for method in QuantizationMethod:
            placement = Placement(0, (0,) * BLOCKS, (), 0)
            model = assemble(of_shape, placement, RandomParts(of_shape, DTYPE, method), DTYPE)
            for rows, own in batches:
                for kind, measured, planned in passes(model, architecture, method, rows, own):
                    tokens = rows * own
                    console.print(
                        f"{shape:13} {method.value:4} {kind:16} {rows:3} x {own:4}: measured {measured / 1e9:6.3f} GB "
                        f"({measured / tokens / 1e6:.3f} MB a token), planned {planned / 1e9:6.3f}"
                        + (f" ({planned / measured - 1:+.0%})" if measured > 0 else "")
                    )
            del model
            gc.collect()


if __name__ == "__main__":
    main()
