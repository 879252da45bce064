"""From a checkpoint's ``config.json`` to the facts of its architecture, and the comparison of the two.

Knows the keys and the defaults of the supported ``model_type``s (transformers' configuration classes); must
not know where the file lies nor import transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from probegrid.errors import ConfigError, UnknownArchitecture, closest
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

_NOT_IN_THE_WEIGHTS = {"context"}
"""Facts that change no weight: a checkpoint may be published anew with another limit."""


def architecture_from_config(config: Mapping[str, Any]) -> Architecture:
    """Read the facts of a decoder from its parsed ``config.json``.

    Raises:
        UnknownArchitecture: the ``model_type`` is not supported.
        ConfigError: a key that determines bytes is missing.
    """
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


def mismatches(facts: Architecture, config: Mapping[str, Any]) -> list[str]:
    """Compare the configured facts with a checkpoint's own config: one phrase a difference.

    Raises:
        ConfigError: as ``architecture_from_config``.
    """
    actual = architecture_from_config(config)
    return [
        f"{field.name} is {getattr(facts, field.name)} in model.architecture "
        f"and {getattr(actual, field.name)} in the checkpoint"
        for field in fields(Architecture)
        if field.name not in _NOT_IN_THE_WEIGHTS and getattr(facts, field.name) != getattr(actual, field.name)
    ]


def _required(config: Mapping[str, Any], key: str, *, may_be_null: bool = False) -> Any:
    if key not in config or (config[key] is None and not may_be_null):
        raise ConfigError(
            f"The checkpoint's config.json has no {key!r}, without which its bytes cannot be computed; "
            "give its numbers under model.architecture."
        )
    return config[key]


CUTTABLE = frozenset({"llama", "qwen2", "qwen3", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text"})
"""The ``model_type``s that are ``embed_tokens -> layers -> norm -> lm_head``, and nothing else."""
