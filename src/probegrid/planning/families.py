"""From a checkpoint's ``config.json`` to the facts of its architecture, and the comparison of the two.

Knows the keys and the defaults of the plain ``model_type``s (transformers' configuration classes), whose weights follow
from them, and what the others call the same things; must not know where the file lies nor import transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from probegrid.errors import ConfigError, UnknownArchitecture, closest
from probegrid.planning.architecture import parameters
from probegrid.schema import Architecture


@dataclass(frozen=True, slots=True)
class _Family:
    """What a ``model_type`` fixes, and the defaults of what its ``config.json`` may leave out."""

    tied_embeddings: bool = False
    head_dim: int | None = None
    """None: ``hidden_size / num_attention_heads``."""
    qkv_bias: bool = False
    """Biases on queries, keys and values, whatever the config says."""
    has_bias_key: bool = False
    """``attention_bias`` puts biases on all four projections of the attention."""
    has_mlp_bias_key: bool = False
    kv_heads_key_required: bool = True
    qk_norm: bool = False
    post_norms: bool = False
    mixture: bool = False


_FAMILIES = {
    "llama": _Family(has_bias_key=True, has_mlp_bias_key=True, kv_heads_key_required=False),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(head_dim=128, has_bias_key=True, qk_norm=True),
    "mistral": _Family(),
    "mixtral": _Family(mixture=True),
    "gemma": _Family(tied_embeddings=True, head_dim=256, has_bias_key=True),
    "gemma2": _Family(tied_embeddings=True, head_dim=256, has_bias_key=True, post_norms=True),
    "gemma3_text": _Family(
        tied_embeddings=True, head_dim=256, has_bias_key=True, qk_norm=True, post_norms=True
    ),
}

_NOT_COMPARED = {"context", "kv_width", "weights", "stored"}
"""The context changes no weight: a checkpoint may be published anew with another limit. How it is stored, it says."""


_TEXT = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
"""Where a model that sees or hears keeps the config of its language model."""
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_LATENT = ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
"""Widths of the heads of latent attention: keys that are turned by their place, those that are not, values."""
_KINDS = ("layer_types", "layers_block_type", "hybrid_override_pattern")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd", "d_model", "dim", "n_embed"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", "num_query_groups"),
    "head_dim": ("head_dim", "kv_channels", "attention_head_dim", "d_kv", "qk_head_dim"),
    "intermediate": ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "dim_ff", "d_inner"),
    "moe_intermediate": ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": (
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_top_k", "top_k_experts",
        "moe_k",
    ),
    "context": (
        "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length", "max_sequence_length",
        "model_max_length", "context_length",
    ),
}  # fmt: skip


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the decoder of text; the config itself where that is all."""
    for key in _TEXT:
        inner = config.get(key)
        if isinstance(inner, Mapping) and (any(name in inner for name in _LAYERS) or "model_type" in inner):
            return text_config(inner)
    return config


def blocks_of(config: Mapping[str, Any]) -> int | None:
    """Blocks of the decoder; None where its config does not say."""
    text = text_config(config)
    order = (
        reversed(_LAYERS) if text.get("model_type") == "longcat_flash" else _LAYERS
    )  # counts attention calls too
    found = next((text[key] for key in order if isinstance(text.get(key), int)), None)
    if found is None:  # some name the kind of each instead
        found = next((len(text[key]) for key in _KINDS if isinstance(text.get(key), list | str)), None)
    return None if found is None else int(found)


def context_of(config: Mapping[str, Any]) -> int | None:
    """Most positions the model takes, in tokens; None where its config sets no limit."""
    return _by_any_name(text_config(config), "context")


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """Tokens that have an embedding; None where its config does not say."""
    text = text_config(config)
    found = [text[key] for key in _NAMES["vocab"] if isinstance(text.get(key), int)]
    more = text.get("additional_vocab_size") or 0  # Idefics keeps its own beside
    return max(found) + int(more) if found else None


def is_tied(config: Mapping[str, Any]) -> bool | None:
    """Whether the head is the embedding; None where the config does not say."""
    told = [
        part["tie_word_embeddings"] for part in (config, text_config(config)) if "tie_word_embeddings" in part
    ]
    return bool(told[0]) if told else None


def numbers_by_any_name(config: Mapping[str, Any], layers: int | None = None) -> Architecture:
    """What the config of any decoder says of its size; its weights are to be known otherwise.

    Args:
        config: parsed ``config.json``.
        layers: blocks, where they are known otherwise.

    Raises:
        ConfigError: it does not say how large it is.
    """
    text = text_config(config)
    found = {name: _by_any_name(text, name) for name in _NAMES}
    hidden, layers, vocab = found["hidden"], layers or blocks_of(config), found["vocab"]
    if hidden is None or layers is None or vocab is None:
        raise ConfigError(
            f"The config.json of model_type={config.get('model_type')!r} names no width, layers or vocabulary; give "
            "its numbers under model.architecture."
        )
    heads = found["heads"] or 1
    turned, plain, values = (int(text.get(key) or 0) for key in _LATENT)
    if turned and plain and values:
        keys = turned + plain
        head_dim, kv_heads, kv_width = keys, heads, heads * (keys + values)
    else:
        head_dim, kv_heads = found["head_dim"] or hidden // heads, found["kv_heads"] or heads
        kv_width = 2 * kv_heads * head_dim
    experts = found["experts"] or 1
    intermediate = found["intermediate"] or 4 * hidden
    return Architecture(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=(found["moe_intermediate"] or intermediate) if experts > 1 else intermediate,
        vocab=vocab,
        experts=experts,
        experts_per_token=min(experts, found["experts_per_token"] or 1),
        context=found["context"] or _NO_LIMIT,
        kv_width=kv_width,
    )


_NO_LIMIT = 10**6
"""Positions of a model whose config sets no limit (recurrent ones)."""


def _by_any_name(config: Mapping[str, Any], name: str) -> int | None:
    """A number by the first of its names that is there; the largest where each layer has its own."""
    for key in _NAMES[name]:
        value = config.get(key)
        if isinstance(value, list) and value and all(isinstance(each, int) for each in value):
            return max(map(int, value))
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def architecture_from_config(config: Mapping[str, Any]) -> Architecture:
    """Read the facts of a decoder of a plain family from its parsed ``config.json``.

    Raises:
        UnknownArchitecture: the ``model_type`` is not a plain one.
        ConfigError: a key that determines bytes is missing.
    """
    if (text := text_config(config)) is not config:
        tied = is_tied(config)
        return architecture_from_config({**text, **({} if tied is None else {"tie_word_embeddings": tied})})
    model_type = str(config.get("model_type"))
    if model_type not in _FAMILIES:
        raise UnknownArchitecture(
            f"model_type={model_type!r} in the checkpoint's config.json cannot be planned: "
            f"{closest(model_type, _FAMILIES)}; or give its numbers under model.architecture."
        )
    family = _FAMILIES[model_type]
    heads = _required(config, "num_attention_heads")
    hidden = _required(config, "hidden_size")
    if family.kv_heads_key_required:
        _required(config, "num_key_value_heads", may_be_null=True)
    attention_bias = family.has_bias_key and bool(config.get("attention_bias", False))
    return Architecture(
        layers=_required(config, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or family.head_dim or hidden // heads,
        intermediate=_required(config, "intermediate_size"),
        vocab=_required(config, "vocab_size"),
        experts=_required(config, "num_local_experts") if family.mixture else 1,
        experts_per_token=_required(config, "num_experts_per_tok") if family.mixture else 1,
        tied_embeddings=bool(config.get("tie_word_embeddings", family.tied_embeddings)),
        attention_bias=family.qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=family.has_mlp_bias_key and bool(config.get("mlp_bias", False)),
        qk_norm=family.qk_norm,
        post_norms=family.post_norms,
        context=_required(config, "max_position_embeddings"),
    )


def mismatches(facts: Architecture, actual: Architecture) -> list[str]:
    """Compare the configured facts with those of a checkpoint: one phrase a difference.

    Where one of them has its weights part by part, weights are compared by their sum.
    """
    found = [
        f"{field.name} is {getattr(facts, field.name)} in model.architecture "
        f"and {getattr(actual, field.name)} in the checkpoint"
        for field in fields(Architecture)
        if field.name not in _NOT_COMPARED and getattr(facts, field.name) != getattr(actual, field.name)
    ]
    if facts.weights is None and actual.weights is None:
        return found
    given, there = (parameters(each).total(each.layers) for each in (facts, actual))
    if abs(given - there) > _SAME_WEIGHTS * there:
        found.append(f"model.architecture has {given} parameters and the checkpoint {there}")
    return [each for each in found if each.split()[0] in _SIZES or "parameters" in each]


_SAME_WEIGHTS = 0.01
_SIZES = ("layers", "hidden", "vocab", "experts", "experts_per_token")
"""Numbers that are read alike however a family is described."""


def _required(config: Mapping[str, Any], key: str, *, may_be_null: bool = False) -> Any:
    if key not in config or (config[key] is None and not may_be_null):
        raise ConfigError(
            f"The checkpoint's config.json has no {key!r}, without which its bytes cannot be computed; "
            "give its numbers under model.architecture."
        )
    return config[key]
