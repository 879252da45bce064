"""Working memory of one forward pass, by both readers, against what the plan counts for it.

    python benchmarks/working_memory.py --preset rehearsal       small shapes on the CPU: does it run
    python benchmarks/working_memory.py                          true shapes, a few blocks of each, on one GPU

What a pass takes beside weights and cache depends on a block's widths and not on how many blocks there are, so that
two blocks of a model tell what all of them need.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator

import torch
from rich.console import Console
from transformers import LlamaConfig, PreTrainedModel

from probegrid.models.architecture import kv_bytes_per_token
from probegrid.models.assembly import assemble, skeleton
from probegrid.models.checkpoint_config import architecture_from_config
from probegrid.models.facts import Facts
from probegrid.models.hardware import Hardware
from probegrid.models.packing import Entries, pack
from probegrid.models.placement import Placement
from probegrid.models.workload import Workload
from probegrid.readings.residual import ResidualReader
from probegrid.readings.shared_prefix import SharedPrefixDecoder
from probegrid.schema import Architecture, Dtype, PlacementStrategy, QuantizationMethod

SHAPES = {
    "qwen7b": dict(hidden_size=3584, intermediate_size=18944, num_attention_heads=28, num_key_value_heads=4,
                   head_dim=128, vocab_size=152064),
    "llama70b": dict(hidden_size=8192, intermediate_size=28672, num_attention_heads=64, num_key_value_heads=8,
                     head_dim=128, vocab_size=128256),
    "mistral_large": dict(hidden_size=12288, intermediate_size=28672, num_attention_heads=96, num_key_value_heads=8,
                          head_dim=128, vocab_size=32768),
}  # fmt: skip
SMALL = {
    "small": dict(hidden_size=256, intermediate_size=512, num_attention_heads=8, num_key_value_heads=2, head_dim=32,
                  vocab_size=1024),
}  # fmt: skip
BLOCKS = 2
DTYPE = torch.bfloat16
console = Console(width=120, highlight=False)


class RandomParts:
    """Random weights, the blocks' matrices packed as the method says."""

    def __init__(self, config: LlamaConfig, method: QuantizationMethod) -> None:
        self._skeleton = skeleton(config, config.num_hidden_layers, DTYPE, with_head=True)
        self._method = method

    def part(self, name: str, device: torch.device) -> Entries:
        """As ``assembly.Parts.part``."""
        entries: Entries = {}
        for local, parameter in self._skeleton.get_submodule(name).named_parameters():
            weight = torch.empty(parameter.shape, dtype=DTYPE, device=device)
            if parameter.dim() == 1 or ".layers." not in name or self._method is QuantizationMethod.none:
                entries[local] = weight.fill_(1.0) if parameter.dim() == 1 else weight.normal_(std=0.02)
            else:
                entries |= pack(local, weight.normal_(std=0.02), self._method)
        return entries


def random_model(config: LlamaConfig, method: QuantizationMethod) -> PreTrainedModel:
    """Two blocks, the embedding and the head, on the first GPU."""
    placement = Placement(0, (0,) * BLOCKS, (), 0)
    return assemble(config, placement, RandomParts(config, method), DTYPE)


def peak_over(call: object) -> int:
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
    answering = facts(Workload(rows, own, len(prefix), 2, batch_size=rows))
    demand = answering.demand(rows)
    prefill = peak_over(lambda: decoder.prefill(suffixes, room=2)) - cache
    yield "answers, prefill", prefill, demand.activations + demand.logits
    yield "answers, step", peak_over(lambda: decoder.step([5] * rows)), demand.activations + demand.logits
    decoder.reset()
    reading = facts(Workload(rows, own, deepest_layer=BLOCKS, batch_size=rows))
    reader = ResidualReader(model, [BLOCKS])
    taken = peak_over(lambda: reader.read(suffixes, [[(own - 1, own)]] * rows))
    yield "activations", taken, reading.demand(rows).activations


def main() -> None:
    """Print a line a shape, method, number of tokens and kind of pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("gpu", "rehearsal"), default="gpu")
    rehearsal = parser.parse_args().preset == "rehearsal"
    batches = [(4, 8), (2, 16)] if rehearsal else [(16, 128), (64, 200), (16, 1000)]
    for shape, widths in (SMALL if rehearsal else SHAPES).items():
        config = LlamaConfig(**widths, num_hidden_layers=BLOCKS, max_position_embeddings=4096)
        architecture = architecture_from_config(config.to_dict())
        for method in QuantizationMethod:
            model = random_model(config, method)
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
