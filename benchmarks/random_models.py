"""Models of true shapes with random weights: every question of speed and memory, none of quality."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from probegrid.embedded import checkpoint_dir
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.fingerprint import WEIGHTS_INDEX
from probegrid.models.parts import Part, Place, parts_of
from probegrid.models.quantization import Entries, pack, quantization_config
from probegrid.models.skeleton import skeleton
from probegrid.schema import QuantizationMethod

SHAPES = {
    "small": dict(
        hidden_size=256, intermediate_size=512, num_hidden_layers=9, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=4096,
    ),
    "tiny": dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=4096,
    ),
    "100m": dict(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4,
        vocab_size=8192,
    ),
    "smollm135m": dict(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152,
    ),
    "llama1b": dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, vocab_size=128256, tie_word_embeddings=True,
    ),
    "llama8b": dict(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256,
    ),
    "qwen7b": dict(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        vocab_size=152064,
    ),
    "llama70b": dict(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
        vocab_size=128256,
    ),
    "mistral_large": dict(
        hidden_size=12288, intermediate_size=28672, num_hidden_layers=88, num_attention_heads=96,
        num_key_value_heads=8, vocab_size=32768,
    ),
}  # fmt: skip


def config(shape: str, blocks: int | None = None) -> LlamaConfig:
    """The Llama config of a shape's name, cut to so many blocks; the widths alone are those of other families."""
    return LlamaConfig(
        **SHAPES[shape] | ({} if blocks is None else {"num_hidden_layers": blocks}),
        architectures=["LlamaForCausalLM"],
        max_position_embeddings=131072,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )


def random_model(shape: str, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """All weights in ``dtype``, drawn as at the start of a training."""
    torch.manual_seed(0)
    with torch.device(device):
        return LlamaForCausalLM(config(shape)).to(dtype).eval()


def random_nf4_model(shape: str, device: str) -> PreTrainedModel:
    """The blocks' linear layers in NF4 with double quantization, drawn and quantized on the device; the rest bf16."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(config(shape)).to(torch.bfloat16).eval()
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            weight = torch.empty(module.weight.shape, dtype=torch.bfloat16, device=device).normal_(std=0.02)
            packed = bnb.nn.Linear4bit(
                module.in_features, module.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4",
                compress_statistics=True, device="meta",
            )  # fmt: skip
            packed.weight = bnb.nn.Params4bit(
                weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=packed
            ).to(device)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, packed)
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            parent, _, child = name.rpartition(".")
            value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
            value = value.fill_(1.0) if parameter.dim() == 1 else value.normal_(std=0.02)
            setattr(model.get_submodule(parent), child, torch.nn.Parameter(value, requires_grad=False))
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    model.tie_weights()
    return model


class RandomParts:
    """The parts of a model as ``assembly.assemble`` takes them, drawn by their names: the same wherever they lie.

    Matrices are normal with deviation 0.02, vectors 1; the matrices of blocks are packed as the method says.
    """

    def __init__(
        self,
        config: LlamaConfig,
        dtype: torch.dtype,
        method: QuantizationMethod = QuantizationMethod.none,
    ) -> None:
        self._skeleton = skeleton(config, None, dtype)
        self._method = method
        self.dtype = dtype

    def part(self, part: Part, device: torch.device) -> Entries:
        """As ``build.Parts.part``; drawn on a GPU if there is one, whose generator is another than the CPU's."""
        entries: Entries = {}
        drawn_on = torch.device("cuda") if device.type == "cpu" and torch.cuda.is_available() else device
        for name in part.tensors:
            parameter = self._skeleton.get_parameter(name)
            weight = torch.empty(parameter.shape, dtype=parameter.dtype, device=drawn_on)
            if parameter.dim() == 1:
                entries[name] = weight.fill_(1.0)
                continue
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
            weight.normal_(std=0.02, generator=torch.Generator(drawn_on).manual_seed(seed))
            packs = part.place is Place.block and self._method.packs
            entries |= pack(self._skeleton, name, weight, self._method) if packs else {name: weight}
        return {name: entry.to(device) for name, entry in entries.items()}

    def write(self, parts: list[str], file: Path, device: torch.device) -> dict[str, int]:
        """Draw parts on ``device`` and write them to one file; returns the bytes of each tensor by its name."""
        known = {part.name: part for part in parts_of(self._skeleton)}
        tensors = {
            name: tensor.cpu() for part in parts for name, tensor in self.part(known[part], device).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
        return {name: tensor.nbytes for name, tensor in tensors.items()}

    def shape(self, name: str) -> torch.Size:
        """Shape of an unquantized tensor, by its name within the checkpoint."""
        return self._skeleton.get_parameter(name).shape

    def names(self, part: str) -> list[str]:
        """Names of a part's unquantized tensors, within the checkpoint."""
        return [f"{part}.{local}" for local, _ in self._skeleton.get_submodule(part).named_parameters()]


def write_checkpoint(
    of_shape: LlamaConfig,
    folder: Path,
    *,
    device: str,
    dtype: torch.dtype,
    method: QuantizationMethod = QuantizationMethod.none,
    blocks: int | None = None,
    blocks_per_file: int = 2,
) -> int:
    """Write a checkpoint of random weights, drawn on ``device`` one part after another, with the embedded tokenizer.

    Args:
        of_shape: the model's config, without tied embeddings.
        folder: written to; it exists.
        device: where the weights are drawn.
        dtype: of the weights that are not quantized.
        method: how the matrices of the blocks are stored.
        blocks: blocks that are written, a multiple of ``blocks_per_file``; config and index say all of them, and
            the files of the later ones are missing. None: everything.
        blocks_per_file: blocks in a file.

    Returns:
        Bytes of the weights written.
    """
    parts = RandomParts(of_shape, dtype, method)
    names = [f"model.layers.{block}" for block in range(of_shape.num_hidden_layers)]
    files = [names[start : start + blocks_per_file] for start in range(0, len(names), blocks_per_file)]
    files[0].insert(0, "model.embed_tokens")
    files.append(["model.norm", "lm_head"])
    kept = len(files) if blocks is None else blocks // blocks_per_file
    weight_map: dict[str, str] = {}
    written = 0
    for number, of_file in enumerate(files):
        file = f"model-{number + 1:05d}-of-{len(files):05d}.safetensors"
        if number < kept:
            sizes = parts.write(of_file, folder / file, torch.device(device))
            written += sum(sizes.values())
            weight_map |= dict.fromkeys(sizes, file)
        else:
            weight_map |= {tensor: file for part in of_file for tensor in parts.names(part)}
    described = of_shape.to_dict() | {"dtype": str(dtype).removeprefix("torch.")}
    if method is not QuantizationMethod.none:
        described["quantization_config"] = stored_as(method)
    (folder / "config.json").write_text(json.dumps(described))
    (folder / WEIGHTS_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for file in (*checkpoint_dir().glob("tokenizer*"), *checkpoint_dir().glob("*.jinja")):
        shutil.copy(file, folder)
    return written


def stored_as(method: QuantizationMethod) -> dict[str, Any]:
    """What a checkpoint's config says of its quantization."""
    unquantized = Checkpoint("", None, "", {"model_type": "llama"})
    settings = quantization_config(method, unquantized)
    assert settings is not None
    return settings.to_dict()
