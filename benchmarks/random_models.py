"""Models of true shapes with random weights: every question of speed and memory, none of quality."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

SHAPES = {
    "100m": dict(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4,
        vocab_size=8192,
    ),
    "llama1b": dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, vocab_size=128256, tie_word_embeddings=True,
    ),
    "llama70b": dict(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
        vocab_size=128256,
    ),
}  # fmt: skip


def config(shape: str) -> LlamaConfig:
    """The Llama config of a shape's name."""
    return LlamaConfig(
        **SHAPES[shape],
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
