"""Writes the choices of `model` from published configs: `python benchmarks/model_choices.py src/probegrid/conf/model`.

Each line below is what a model's config.json on the hub says of its size. The facts in its YAML follow from it: by
arithmetic for the plain families, else by transformers' own model of it on the meta device.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from probegrid.errors import UnknownArchitecture
from probegrid.planning.families import architecture_from_config
from probegrid.schema import Architecture, plain_values


@dataclass(frozen=True)
class Published:
    """A model as its publisher describes it."""

    path: str
    title: str
    billions: float
    """Parameters of its language model, as published, in 10^9; the check of the config's numbers."""
    family: str
    numbers: Mapping[str, Any]
    stored: str | None = None
    """``quant_method`` of its files; None: they are not quantized."""


def _sized(
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    vocab: int,
    context: int,
    **more: Any,
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        **more,
    }


_TIED, _UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
_QWEN3 = {"head_dim": 128, "attention_bias": False}
_LATENT = {
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
}  # fmt: skip
_QWEN35 = {
    "head_dim": 256, "linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128, **_UNTIED,
}  # fmt: skip
"""Their publisher names 9, 27 and 35 billion, towers and drafting heads among them."""
_GEMMA4 = {
    "head_dim": 256, "global_head_dim": 512, "sliding_window": 1024, "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
}  # fmt: skip
_GPT_OSS = {"head_dim": 64, "num_experts_per_tok": 4, **_UNTIED}

PUBLISHED: dict[str, Published] = {
    "smollm2_135m": Published("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2 135M Instruct", 0.1345, "llama",
        _sized(576, 1536, 30, 9, 3, 49152, 8192, **_TIED)),
    "smollm2_360m": Published("HuggingFaceTB/SmolLM2-360M-Instruct", "SmolLM2 360M Instruct", 0.3618, "llama",
        _sized(960, 2560, 32, 15, 5, 49152, 8192, **_TIED)),
    "smollm2_1_7b": Published("HuggingFaceTB/SmolLM2-1.7B-Instruct", "SmolLM2 1.7B Instruct", 1.711, "llama",
        _sized(2048, 8192, 24, 32, 32, 49152, 8192, **_TIED)),
    "smollm3_3b": Published("HuggingFaceTB/SmolLM3-3B", "SmolLM3 3B", 3.075, "smollm3",
        _sized(2048, 11008, 36, 16, 4, 128256, 65536, **_TIED)),
    "qwen25_0_5b": Published("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2.5 0.5B Instruct", 0.494, "qwen2",
        _sized(896, 4864, 24, 14, 2, 151936, 32768, **_TIED)),
    "qwen25_3b": Published("Qwen/Qwen2.5-3B-Instruct", "Qwen2.5 3B Instruct", 3.086, "qwen2",
        _sized(2048, 11008, 36, 16, 2, 151936, 32768, **_TIED)),
    "qwen25_14b": Published("Qwen/Qwen2.5-14B-Instruct", "Qwen2.5 14B Instruct", 14.77, "qwen2",
        _sized(5120, 13824, 48, 40, 8, 152064, 32768, **_UNTIED)),
    "qwen25_32b": Published("Qwen/Qwen2.5-32B-Instruct", "Qwen2.5 32B Instruct", 32.76, "qwen2",
        _sized(5120, 27648, 64, 40, 8, 152064, 32768, **_UNTIED)),
    "qwen3_0_6b": Published("Qwen/Qwen3-0.6B", "Qwen3 0.6B", 0.596, "qwen3",
        _sized(1024, 3072, 28, 16, 8, 151936, 40960, **_QWEN3, **_TIED)),
    "qwen3_1_7b": Published("Qwen/Qwen3-1.7B", "Qwen3 1.7B", 1.7206, "qwen3",
        _sized(2048, 6144, 28, 16, 8, 151936, 40960, **_QWEN3, **_TIED)),
    "qwen3_4b": Published("Qwen/Qwen3-4B", "Qwen3 4B", 4.022, "qwen3",
        _sized(2560, 9728, 36, 32, 8, 151936, 40960, **_QWEN3, **_TIED)),
    "qwen3_8b": Published("Qwen/Qwen3-8B", "Qwen3 8B", 8.19, "qwen3",
        _sized(4096, 12288, 36, 32, 8, 151936, 40960, **_QWEN3, **_UNTIED)),
    "qwen3_14b": Published("Qwen/Qwen3-14B", "Qwen3 14B", 14.77, "qwen3",
        _sized(5120, 17408, 40, 40, 8, 151936, 40960, **_QWEN3, **_UNTIED)),
    "qwen3_32b": Published("Qwen/Qwen3-32B", "Qwen3 32B", 32.76, "qwen3",
        _sized(5120, 25600, 64, 64, 8, 151936, 40960, **_QWEN3, **_UNTIED)),
    "qwen3_30b_a3b": Published("Qwen/Qwen3-30B-A3B", "Qwen3 30B-A3B, a mixture", 30.53, "qwen3_moe",
        _sized(2048, 6144, 48, 32, 4, 151936, 40960, num_experts=128, num_experts_per_tok=8,
               moe_intermediate_size=768, **_QWEN3, **_UNTIED)),
    "qwen3_next_80b": Published("Qwen/Qwen3-Next-80B-A3B-Instruct",
        "Qwen3-Next 80B-A3B Instruct, a mixture of which three blocks in four are linear", 79.67, "qwen3_next",
        _sized(2048, 5120, 48, 16, 2, 151936, 262144, head_dim=256, num_experts=512, num_experts_per_tok=10,
               moe_intermediate_size=512, shared_expert_intermediate_size=512, linear_num_key_heads=16,
               linear_num_value_heads=32, linear_key_head_dim=128, linear_value_head_dim=128, **_UNTIED)),
    "qwen35_9b": Published("Qwen/Qwen3.5-9B", "Qwen3.5 9B, its language model", 8.954, "qwen3_5_text",
        _sized(4096, 12288, 32, 16, 4, 248320, 262144, linear_num_value_heads=32, **_QWEN35)),
    "qwen35_27b": Published("Qwen/Qwen3.5-27B", "Qwen3.5 27B, its language model", 26.90, "qwen3_5_text",
        _sized(5120, 17408, 64, 24, 4, 248320, 262144, linear_num_value_heads=48, **_QWEN35)),
    "qwen35_35b_a3b": Published("Qwen/Qwen3.5-35B-A3B", "Qwen3.5 35B-A3B, a linear mixture, its language model", 34.66,
        "qwen3_5_moe_text",
        _sized(2048, 512, 40, 16, 2, 248320, 262144, num_experts=256, num_experts_per_tok=8, moe_intermediate_size=512,
               shared_expert_intermediate_size=512, linear_num_value_heads=32, **_QWEN35)),
    "gemma2_2b": Published("google/gemma-2-2b-it", "Gemma 2 2B", 2.614, "gemma2",
        _sized(2304, 9216, 26, 8, 4, 256000, 8192, head_dim=256)),
    "gemma2_9b": Published("google/gemma-2-9b-it", "Gemma 2 9B", 9.242, "gemma2",
        _sized(3584, 14336, 42, 16, 8, 256000, 8192, head_dim=256)),
    "gemma2_27b": Published("google/gemma-2-27b-it", "Gemma 2 27B", 27.23, "gemma2",
        _sized(4608, 36864, 46, 32, 16, 256000, 8192, head_dim=128)),
    "gemma3_1b": Published("google/gemma-3-1b-it", "Gemma 3 1B", 0.9999, "gemma3_text",
        _sized(1152, 6912, 26, 4, 1, 262144, 32768, head_dim=256)),
    "gemma3_4b": Published("google/gemma-3-4b-it", "Gemma 3 4B, its language model", 3.88, "gemma3_text",
        _sized(2560, 10240, 34, 8, 4, 262208, 131072, head_dim=256)),
    "gemma3_12b": Published("google/gemma-3-12b-it", "Gemma 3 12B, its language model", 11.77, "gemma3_text",
        _sized(3840, 15360, 48, 16, 8, 262208, 131072, head_dim=256)),
    "gemma3_27b": Published("google/gemma-3-27b-it", "Gemma 3 27B, its language model", 27.0, "gemma3_text",
        _sized(5376, 21504, 62, 32, 16, 262208, 131072, head_dim=128)),
    "gemma4_26b_a4b": Published("google/gemma-4-26B-A4B-it", "Gemma 4 26B-A4B, a mixture, its language model", 25.2,
        "gemma4_text",
        _sized(2816, 2112, 30, 16, 8, 262144, 262144, num_global_key_value_heads=2, enable_moe_block=True,
               num_experts=128, top_k_experts=8, moe_intermediate_size=704, **_GEMMA4)),
    "gemma4_31b": Published("google/gemma-4-31B-it", "Gemma 4 31B, its language model", 30.7, "gemma4_text",
        _sized(5376, 21504, 60, 32, 16, 262144, 262144, num_global_key_value_heads=4, **_GEMMA4)),
    "llama32_3b": Published("meta-llama/Llama-3.2-3B-Instruct", "Llama 3.2 3B Instruct", 3.213, "llama",
        _sized(3072, 8192, 28, 24, 8, 128256, 131072, head_dim=128, **_TIED)),
    "llama4_scout": Published("meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "Llama 4 Scout Instruct, a mixture; its language model", 107.8, "llama4_text",
        _sized(5120, 8192, 48, 40, 8, 202048, 262144, head_dim=128, intermediate_size_mlp=16384, num_local_experts=16,
               num_experts_per_tok=1, interleave_moe_layer_step=1, **_UNTIED)),
    "mistral_nemo": Published("mistralai/Mistral-Nemo-Instruct-2407", "Mistral Nemo 12B Instruct", 12.25, "mistral",
        _sized(5120, 14336, 40, 32, 8, 131072, 131072, head_dim=128)),
    "mistral_small": Published("mistralai/Mistral-Small-3.1-24B-Instruct-2503", "Mistral Small 3.1 24B Instruct, its "
        "language model", 23.57, "mistral", _sized(5120, 32768, 40, 32, 8, 131072, 131072, head_dim=128)),
    "phi3_mini": Published("microsoft/Phi-3-mini-4k-instruct", "Phi-3 mini, 3.8B", 3.821, "phi3",
        _sized(3072, 8192, 32, 32, 32, 32064, 4096, **_UNTIED)),
    "phi4_mini": Published("microsoft/Phi-4-mini-instruct", "Phi-4 mini, 3.8B", 3.836, "phi3",
        _sized(3072, 8192, 32, 24, 8, 200064, 131072, **_TIED)),
    "phi4": Published("microsoft/phi-4", "Phi-4, 14B", 14.66, "phi3",
        _sized(5120, 17920, 40, 40, 10, 100352, 16384, **_UNTIED)),
    "olmo2_7b": Published("allenai/OLMo-2-1124-7B-Instruct", "OLMo 2 7B Instruct", 7.299, "olmo2",
        _sized(4096, 11008, 32, 32, 32, 100352, 4096, **_UNTIED)),
    "olmo2_13b": Published("allenai/OLMo-2-1124-13B-Instruct", "OLMo 2 13B Instruct", 13.72, "olmo2",
        _sized(5120, 13824, 40, 40, 40, 100352, 4096, **_UNTIED)),
    "olmo3_7b": Published("allenai/Olmo-3-7B-Instruct", "OLMo 3 7B Instruct", 7.298, "olmo3",
        _sized(4096, 11008, 32, 32, 32, 100278, 65536, **_UNTIED)),
    "glm4_9b": Published("zai-org/GLM-4-9B-0414", "GLM-4 9B", 9.4, "glm4",
        _sized(4096, 13696, 40, 32, 2, 151552, 32768, head_dim=128, attention_bias=True, **_UNTIED)),
    "glm45_air": Published("zai-org/GLM-4.5-Air", "GLM-4.5 Air, a mixture", 106.8, "glm4_moe",
        _sized(4096, 10944, 46, 96, 8, 151552, 131072, head_dim=128, attention_bias=True, n_routed_experts=128,
               n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=1408, first_k_dense_replace=1,
               use_qk_norm=False, **_UNTIED)),
    "gpt_oss_20b": Published("openai/gpt-oss-20b", "gpt-oss 20B, a mixture stored in MXFP4", 20.91, "gpt_oss",
        _sized(2880, 2880, 24, 64, 8, 201088, 131072, num_local_experts=32, **_GPT_OSS),
        "mxfp4"),
    "gpt_oss_120b": Published("openai/gpt-oss-120b", "gpt-oss 120B, a mixture stored in MXFP4", 116.8, "gpt_oss",
        _sized(2880, 2880, 36, 64, 8, 201088, 131072, num_local_experts=128, **_GPT_OSS),
        "mxfp4"),
    "deepseek_v3": Published("deepseek-ai/DeepSeek-V3", "DeepSeek-V3, a mixture stored in FP8", 671.0, "deepseek_v3",
        _sized(7168, 18432, 61, 128, 128, 129280, 163840, moe_intermediate_size=2048, n_routed_experts=256,
               n_shared_experts=1, num_experts_per_tok=8, n_group=8, topk_group=4, first_k_dense_replace=3, **_LATENT,
               **_UNTIED), "fp8"),
    "r1_distill_1_5b": Published("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-R1 distilled to Qwen 1.5B",
        1.777, "qwen2", _sized(1536, 8960, 28, 12, 2, 151936, 131072, **_UNTIED)),
    "r1_distill_7b": Published("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1 distilled to Qwen 7B", 7.616,
        "qwen2", _sized(3584, 18944, 28, 28, 4, 152064, 131072, **_UNTIED)),
    "r1_distill_8b": Published("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "DeepSeek-R1 distilled to Llama 8B", 8.03,
        "llama", _sized(4096, 14336, 32, 32, 8, 128256, 131072, **_UNTIED)),
    "r1_distill_32b": Published("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "DeepSeek-R1 distilled to Qwen 32B", 32.76,
        "qwen2", _sized(5120, 27648, 64, 40, 8, 152064, 131072, **_UNTIED)),
    "r1_distill_70b": Published("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "DeepSeek-R1 distilled to Llama 70B",
        70.55, "llama", _sized(8192, 28672, 80, 64, 8, 128256, 131072, **_UNTIED)),
    "granite33_2b": Published("ibm-granite/granite-3.3-2b-instruct", "Granite 3.3 2B Instruct", 2.53, "granite",
        _sized(2048, 8192, 40, 32, 8, 49159, 131072, **_TIED)),
    "granite33_8b": Published("ibm-granite/granite-3.3-8b-instruct", "Granite 3.3 8B Instruct", 8.17, "granite",
        _sized(4096, 12800, 40, 32, 8, 49159, 131072, **_TIED)),
    "command_r7b": Published("CohereLabs/c4ai-command-r7b-12-2024", "Command R 7B", 8.03, "cohere2",
        _sized(4096, 14336, 32, 32, 8, 256000, 132096, head_dim=128)),
    "command_r": Published("CohereLabs/c4ai-command-r-v01", "Command R, 35B", 34.98, "cohere",
        _sized(8192, 22528, 40, 64, 64, 256000, 131072)),
    "command_a": Published("CohereLabs/c4ai-command-a-03-2025", "Command A, 111B", 111.06, "cohere2",
        _sized(12288, 36864, 64, 96, 8, 256000, 131072, head_dim=128)),
}  # fmt: skip
"""By the choice's name."""


def architecture_of(published: Published) -> Architecture:
    """The facts that a published config gives."""
    return replace(_numbers_of(published), stored=published.stored)


def _numbers_of(published: Published) -> Architecture:
    try:
        return architecture_from_config({"model_type": published.family, **published.numbers})
    except UnknownArchitecture:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        from probegrid.models.facts import architecture_of_skeleton

        return architecture_of_skeleton(CONFIG_MAPPING[published.family](**published.numbers))


def text_of(published: Published) -> str:
    """The YAML of a choice."""
    found, plain = architecture_of(published), Architecture()
    values = {
        name: value
        for name, value in plain_values(found).items()
        if name in _ALWAYS or value != plain_values(plain)[name]
    }
    if found.weights is not None:
        values["weights"]["blocks"] = [
            {
                name: value
                for name, value in block.items()
                if (name, value) not in (("count", 1), ("experts", 0))
            }
            for block in values["weights"]["blocks"]
        ]
    body = {"path": published.path, "revision": None, "dtype": "bfloat16", "architecture": values}
    body["resources"] = dict.fromkeys(("gpus", "cpus", "mem_gb", "timeout_min"))
    return f"# {published.title}.\n{yaml.safe_dump(body, sort_keys=False, width=120)}"


_ALWAYS = [field.name for field in fields(Architecture) if "MISSING" in repr(field.default)]


def main() -> None:
    """Write every choice."""
    folder = Path(sys.argv[1])
    for name, published in PUBLISHED.items():
        (folder / f"{name}.yaml").write_text(text_of(published))


if __name__ == "__main__":
    main()
