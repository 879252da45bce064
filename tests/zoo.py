"""Small random checkpoints of every decoder that transformers can build, and of the image-text models around one.

A family's config is its own default with every number of its size cut down by one table of rules, so that a family
transformers adds is here without a word; ``CHANGES`` holds the few numbers that a rule cannot know. Windows, chunks and
top-k are shorter than the tests' prompts, values of latent attention narrower than keys, kinds of layers all there.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

VOCABULARY = 96
CONTEXT = 512
WINDOW = 16
"""Tokens of every sliding window: prompts are longer."""

RULES: Mapping[tuple[str, ...], object] = {
    ("vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input"): VOCABULARY,
    ("hidden_size", "n_embd", "d_model", "embedding_dim", "word_embed_proj_dim", "dim_model_base"): 32,
    ("lru_width", "attention_hidden_size", "hidden_size_per_layer_input", "router_hidden_size"): 32,
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_blocks"): 4,
    (
        "num_attention_heads",
        "n_head",
        "n_heads",
        "num_heads",
        "attention_heads",
        "decoder_attention_heads",
    ): 4,
    ("num_key_value_heads", "num_kv_heads", "num_query_groups", "multi_query_group_num"): 2,
    (
        "head_dim",
        "global_head_dim",
        "swa_head_dim",
        "d_head",
        "dim_head",
        "attention_head_dim",
        "kv_channels",
    ): 8,
    ("swa_num_attention_heads",): 4,
    ("swa_num_key_value_heads", "num_global_key_value_heads"): 2,
    ("intermediate_size", "ffn_dim", "n_inner", "dim_ff", "dff", "d_inner", "ffn_hidden_size"): 64,
    ("decoder_ffn_dim", "intermediate_size_mlp", "dense_intermediate_size"): 64,
    ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_experts_intermediate_size"): 16,
    ("expert_ffn_hidden_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"): 16,
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"): 8,
    ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"): 2,
    ("n_group", "num_expert_group", "topk_group"): 1,
    ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"): 1,
    ("first_k_dense_replace", "num_dense_layers"): 1,
    ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length"): CONTEXT,
    ("original_max_position_embeddings", "context_length"): CONTEXT,
    (
        "sliding_window",
        "sliding_window_size",
        "attention_window_size",
        "window_size",
        "local_attention",
    ): WINDOW,
    ("attention_chunk_size", "block_size"): WINDOW,
    ("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers"): 2,
    ("qk_rope_head_dim", "qk_nope_head_dim"): 8,
    ("qk_head_dim",): 16,
    ("v_head_dim",): 6,
    ("q_lora_rank", "kv_lora_rank", "o_lora_rank"): 16,
    ("o_groups",): 2,
    ("index_head_dim",): 16,
    (
        "index_n_heads",
    ): 16,  # their scores are rectified: with few heads they tie at 0, and ties are broken at random
    ("index_topk",): 12,
    ("index_block_size",): 4,
    ("index_topk_blocks",): 3,
    ("rotary_dim",): 4,
    ("query_pre_attn_scalar",): 8,
    ("linear_num_key_heads", "linear_num_heads"): 2,
    ("linear_num_value_heads",): 4,
    ("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"): 8,
    ("mamba_d_state", "ssm_state_size", "state_size"): 8,
    ("mamba_n_heads", "mamba_num_heads"): 4,
    ("mamba_d_head", "mamba_head_dim", "mamba_headdim"): 16,
    ("mamba_d_ssm",): 64,
    ("mamba_chunk_size", "chunk_size"): 8,
    ("mamba_dt_rank", "time_step_rank"): 4,
    ("n_groups", "mamba_n_groups", "mamba_ngroups"): 2,
    ("laurel_rank", "adapter_rank", "gated_norm_rank"): 4,
    ("initializer_range", "init_std", "embedding_initializer_range"): 0.25,
}
_BY_KEY = {key: value for keys, value in RULES.items() for key in keys}

MROPE = [2, 1, 1]
"""Angles of a head that time, height and width turn."""
TURNED_BY_PLACE = (
    "glm46v_text", "glm4v_text", "glm_ocr_text", "paddleocr_vl_text", "qwen2_5_vl_text",
    "qwen2_vl_text",
)  # fmt: skip
"""Parts whose default says nothing of it."""
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

_SLIDING = ["sliding_attention", "full_attention"] * 2
_LINEAR = ["linear_attention", "full_attention"] * 2
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_BY_KIND = {"sliding_attention": _ROPE, "full_attention": _ROPE}

CHANGES: Mapping[str, Mapping[str, Any]] = {
    "bailing_hybrid": {"layer_types": _LINEAR, "layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"layer_types": _SLIDING, "rope_parameters": _BY_KIND},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note_text": {
        "layer_types": ["indexed_attention", "sliding_attention"] * 2,
        "per_layer_config": {
            layer: {
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "qk_nope_head_dim": 12,
                "head_dim": 20,
            }
            for layer in ("1", "3")
        },
    },
    "dots1": {
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "layer_types": _SLIDING,
    },
    "gemma3_text": {"layer_types": _SLIDING},
    "gemma3n_text": {"layer_types": _SLIDING, "num_kv_shared_layers": 2, "intermediate_size": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {"layer_types": _LINEAR},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": _LINEAR},
    "kolibri1": {"layer_types": _SLIDING},
    "laguna": {"layer_types": _SLIDING},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"head_dim": 16},
    "mellum": {"layer_types": _SLIDING},
    "ministral": {"head_dim": 8, "layer_types": _SLIDING},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "indexed_attention"] * 2,
        "indexer_n_heads": 16,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "hc_lowrank": 8,
        "ngram_vocab_size_base": 64,
        "split_ngram_parts": 2,
        "ple_embed_dim": 32,
    },
    "step3p5": {
        "layer_types": _SLIDING,
        "rope_parameters": _BY_KIND,
        "sliding_window": WINDOW,
        "share_expert_dim": 16,
    },
    "xlstm": {"chunk_size": 8, "hidden_size": 128, "embedding_dim": 128},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""By ``model_type``."""

NOT_DECODERS: Mapping[str, str] = {
    "blt": "reads bytes, and cuts them into patches by a second model",
    "bert-generation": "an encoder, unless its config says otherwise",
    "cpmant": "fills in text, and sees both sides",
    "gemma4_assistant": "drafts for another model, whose hidden states it reads",
    "gemma4_unified_assistant": "drafts for another model, whose hidden states it reads",
    "git": "describes images",
    "moshi": "speaks",
    "moss_transcribe_diarize": "a listener",
    "musicgen": "makes music",
    "musicgen_melody": "makes music",
    "trocr": "the decoder of a reader of images",
    "whisper": "the decoder of a listener",
    "xlnet": "sees both sides",
}
"""What the table of causal models names besides decoders of text, and what each is."""

NOT_WRAPPERS: Mapping[str, str] = {
    "blip": "describes images",
    "blip-2": "asks for an image",
    "diffusion_gemma": "denoises blocks of text",
    "evolla": "reads proteins",
    "florence2": "an encoder-decoder",
    "instructblip": "asks for an image",
    "instructblipvideo": "asks for an image",
    "pi0": "moves a robot",
    "pix2struct": "an encoder-decoder",
    "pp_formulanet": "an encoder-decoder",
    "shieldgemma2": "a classifier",
    "t5gemma2": "an encoder-decoder",
    "udop": "an encoder-decoder",
    "vision-encoder-decoder": "an encoder-decoder",
}
"""What the table of image-text models names besides wrappers of a decoder, and what each is."""

_TIMM = "its tower needs timm to be made"
_TOWER = "its tower does not become small by a rule"
UNMADE: Mapping[str, str] = {
    "deepseek_ocr2": _TOWER,
    "dots3_note": _TOWER,
    "ernie4_5_vl_moe": "its defaults do not agree",
    "emu3": "tokens of images need a table of words",
    "fast_vlm": _TIMM,
    "gemma3n": _TIMM,
    "glm4v_moe": "its defaults do not agree",
    "glm5_next": "its defaults do not agree",
    "granite4_vision": _TOWER,
    "hunyuan_vl": "its defaults do not agree",
    "janus": _TOWER,
    "kosmos-2": _TOWER,
    "kosmos-2.5": _TOWER,
    "molmo2": _TOWER,
    "muse_glimmer": _TOWER,
    "muse_spark": _TOWER,
    "nemotron_h_omni": _TOWER,
    "perception_lm": _TIMM,
    "qwen2_5_omni_thinker": _TOWER,
    "qwen3_omni_moe_thinker": _TOWER,
}
"""Wrappers that are not in the catalogue, and why."""

VISION: Mapping[str, object] = {
    "num_hidden_layers": 1,
    "num_layers": 1,
    "depth": 1,
    "image_size": 28,
    "patch_size": 14,
    "num_heads": 2,
    "num_attention_heads": 2,
    "embed_dim": 32,
    "out_hidden_size": 32,
    "projection_dim": 32,
    "vision_output_dim": 32,
    "projector_input_dim": 32,
    "projector_output_dim": 32,
    "text_hidden_size": 32,
    "output_dim": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "max_source_positions": 32,
}
"""Rules of the towers, which are never run."""


def text_families() -> list[str]:
    """The ``model_type`` of every decoder that transformers builds as a causal language model."""
    from transformers.models.auto import modeling_auto as tables

    others = {
        *tables.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        *tables.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *wrappers(),
        *NOT_DECODERS,
        *UNMADE,
    }
    return sorted(set(tables.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - others)


@cache
def wrappers() -> tuple[str, ...]:
    """The ``model_type`` of every image-text model with a decoder of text inside."""
    from transformers.models.auto import modeling_auto as tables

    names = tables.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return tuple(sorted(name for name in names if _has_decoder(name)))


def _has_decoder(name: str) -> bool:
    if name in NOT_WRAPPERS or name in UNMADE:
        return False
    with _quiet():
        return "text_config" in _kind(name).sub_configs or hasattr(_kind(name)(), "text_config")


def _kind(name: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[name]


def config_of(family: str, **changes: Any) -> Any:
    """The config of a small model of a family.

    Args:
        family: a ``model_type``.
        changes: keys of the decoder's own config, which count before the rules.
    """
    with _quiet():
        kind = _kind(family)
        return kind(**_small(kind(), changes))


def _small(default: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a small config, those of its parts within."""
    from transformers import PreTrainedConfig

    values, found = default.to_dict(), {}
    per_layer = {each for changed in (values.get("per_layer_config") or {}).values() for each in changed}
    vision = type(default).base_config_key in ("vision_config", "audio_config")
    for key, value in values.items():
        part = None if key in per_layer else getattr(default, key, None)
        if isinstance(part, PreTrainedConfig):
            within = _small(part, changes if key == "text_config" else {})
            found[key] = within | {"model_type": part.model_type}
        elif value is not None and not isinstance(value, (bool, list, dict)):
            rules = _BY_KEY | VISION if vision else _BY_KEY
            if key in rules:
                found[key] = rules[key]
    rope = values.get("rope_parameters") or {}
    if "mrope_section" in rope or default.model_type in TURNED_BY_PLACE:
        found["rope_parameters"] = {**_ROPE, **rope, "mrope_section": MROPE}
    if values.get("kv_lora_rank"):
        found["num_key_value_heads"] = found["num_attention_heads"]
    found |= {key: value for key, value in SPECIAL.items() if key in values}
    if "vocab_size" in changes and "vocab_size_per_layer_input" in values:
        found["vocab_size_per_layer_input"] = changes["vocab_size"]
    changes = {} if "text_config" in found else changes
    return found | dict(CHANGES.get(default.model_type, {})) | dict(changes)


def build(config: Any, seed: int = 0) -> Any:
    """A random float32 model that says something else after every prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind: Any = AutoModelForImageTextToText if config.model_type in wrappers() else AutoModelForCausalLM
    torch.manual_seed(seed)
    with _quiet():
        model = kind.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases would all be 0, and norms all 1
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def save(family: str, folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Save a small random checkpoint of a family, without a tokenizer."""
    with _quiet():
        build(config_of(family, **changes), seed).save_pretrained(folder)
    return folder


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Transformers warns of special tokens beyond the small vocabulary and of kernels that are absent."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
