"""One way of reading a layer's activations, in a process of its own, so that its memory is its own too.

Started by ``activations.py`` with any interpreter: no method imports what another needs.

    python activation_methods.py METHOD CHECKPOINT WORKLOAD LAYER FOLDER

WORKLOAD is JSON (``passages``: token ids; ``positions``: what is read of each; ``sample``: how many passages a method
that takes one pass a statement reads). Writes what the method stores to FOLDER/store, the rows of the layer to
FOLDER/rows.pt, and seconds and bytes to FOLDER/result.json.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Passages = list[tuple[list[int], list[int]]]
"""Token ids and the positions that are read."""
Read = Callable[[Passages, Path], Tensor]
"""Stores what it reads of the passages in a folder and returns the layer's rows, [n, d]."""


def ours(checkpoint: str, layer: int) -> Read:
    """The first blocks, batches of passages, a hook at the layer, bfloat16 on disk: the project's own code."""
    from probegrid.models.checkpoint import find_checkpoint
    from probegrid.models.load_truncated import load_truncated
    from probegrid.models.request import ModelRequest
    from probegrid.progress import Progress
    from probegrid.readings.activations import read_activations
    from probegrid.readings.spans import Example, Passage
    from probegrid.schema import Dtype, ModelConfig, QuantizationMethod

    config = ModelConfig(path=checkpoint, dtype=Dtype.float32)
    found = find_checkpoint(config)
    loaded = load_truncated(ModelRequest(found, config, QuantizationMethod.none), layer)

    def read(passages: Passages, folder: Path) -> Tensor:
        prepared = [
            Passage(
                str(index), tuple(ids), tuple(Example(f"{index}/{at}", str(index), "", True) for at in positions),
                tuple((at, at + 1) for at in positions),
            )
            for index, (ids, positions) in enumerate(passages)
        ]  # fmt: skip
        reading = read_activations(
            prepared, [layer], description={}, store_dir=str(folder), open_model=lambda _deepest: loaded,
            progress=Progress(),
        )  # fmt: skip
        return reading.values(layer)

    return read


def by_statement(checkpoint: str, layer: int) -> Read:
    """transformers, the whole model, one pass a position with all hidden states, of which one row is kept."""
    model = _whole_model(checkpoint)

    def read(passages: Passages, folder: Path) -> Tensor:
        rows = [_hidden_states(model, ids)[layer][at] for ids, positions in passages for at in positions]
        return _saved(torch.stack(rows), folder)

    return read


def by_conversation(checkpoint: str, layer: int) -> Read:
    """transformers, the whole model, one pass a passage; all hidden states of all tokens are kept, then indexed."""
    model = _whole_model(checkpoint)

    def read(passages: Passages, folder: Path) -> Tensor:
        states = [torch.stack(_hidden_states(model, ids)) for ids, _ in passages]
        _saved(torch.cat(states, dim=1), folder)
        return torch.cat([of[layer, at] for of, (_, at) in zip(states, passages, strict=True)])

    return read


def lens(checkpoint: str, layer: int) -> Read:
    """TransformerLens, one pass a passage, a cache of one layer (``names_filter``)."""
    return _lens(checkpoint, layer)


def lens_stopped(checkpoint: str, layer: int) -> Read:
    """The same, the forward pass stopped behind that layer's block (``stop_at_layer``)."""
    return _lens(checkpoint, layer, stop_at_layer=layer)


METHODS: dict[str, tuple[Callable[[str, int], Read], tuple[str, ...]]] = {
    "ours": (ours, ("probegrid.models.load_truncated", "probegrid.readings.activations", "accelerate")),
    "by_statement": (by_statement, ("accelerate",)),
    "by_conversation": (by_conversation, ("accelerate",)),
    "lens": (lens, ("transformer_lens.model_bridge",)),
    "lens_stopped": (lens_stopped, ("transformer_lens.model_bridge",)),
}
"""Each method, and what is imported before memory is counted (transformers' Llama besides)."""


def _whole_model(checkpoint: str) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()


def _hidden_states(model: Any, ids: list[int]) -> list[Tensor]:
    """Of every layer, [tokens, d]."""
    output = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return [states[0] for states in output.hidden_states]


def _saved(tensor: Tensor, folder: Path) -> Tensor:
    torch.save(tensor, folder / "activations.pt")
    return tensor


def _lens(checkpoint: str, layer: int, **settings: int) -> Read:
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(checkpoint, device="cpu", dtype=torch.float32)
    name = f"blocks.{layer - 1}.hook_out"

    def read(passages: Passages, folder: Path) -> Tensor:
        rows: list[Tensor] = []
        for ids, positions in passages:
            _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=name, **settings)
            rows.append(cache[name][0, positions])
        return _saved(torch.cat(rows), folder)

    return read


def main() -> None:
    """Load, warm up, read once, and write down what it took."""
    method, checkpoint, workload_file, layer, folder = sys.argv[1:]
    work, store = json.loads(Path(workload_file).read_text()), Path(folder) / "store"
    passages = list(zip(work["passages"], work["positions"], strict=True))
    if method == "by_statement":
        passages = passages[: work["sample"]]
    make, modules = METHODS[method]
    for module in (*modules, "transformers.models.llama.modeling_llama"):
        importlib.import_module(module)
    before, started = _peak_bytes(), time.perf_counter()
    read = make(checkpoint, int(layer))
    load_s = time.perf_counter() - started
    with torch.inference_mode():
        for name, part in (("warm", passages[:1]), ("store", passages)):
            folder_of = Path(folder) / name
            folder_of.mkdir(parents=True)
            started = time.perf_counter()
            rows = read(part, folder_of)
            read_s = time.perf_counter() - started
    torch.save(rows.float(), Path(folder) / "rows.pt")
    result = {
        "load_s": load_s,
        "read_s": read_s,
        "peak_bytes": _peak_bytes() - before,
        "stored_bytes": sum(file.stat().st_size for file in store.rglob("*") if file.is_file()),
        "passages": len(work["passages"]),
        "read_passages": len(passages),
    }
    (Path(folder) / "result.json").write_text(json.dumps(result))


def _peak_bytes() -> int:
    """Most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
