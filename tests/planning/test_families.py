"""Reading the facts out of config.json, and comparing them with what was configured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from probegrid.errors import ConfigError
from probegrid.planning.families import architecture_from_config, mismatches

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}


def test_head_width_defaults_to_an_equal_share() -> None:
    assert architecture_from_config(LLAMA_8B).head_dim == 128
    assert architecture_from_config({**LLAMA_8B, "head_dim": 64}).head_dim == 64


def test_old_llama_configs_have_as_many_key_heads_as_heads() -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "num_key_value_heads"}
    assert architecture_from_config(config).kv_heads == 32


@pytest.mark.parametrize(("model_type", "tied"), [("gemma2", True), ("qwen3", False)])
def test_what_a_config_leaves_out_is_the_default_of_its_family(model_type: str, tied: bool) -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "tie_word_embeddings"}
    assert architecture_from_config({**config, "model_type": model_type}).tied_embeddings is tied


def test_unknown_family_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"model_type='mixtrel'.*did you mean 'mixtral'") as refusal:
        architecture_from_config({**LLAMA_8B, "model_type": "mixtrel"})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "max_position_embeddings"])
def test_missing_key_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        architecture_from_config({name: value for name, value in LLAMA_8B.items() if name != key})


def test_mixtral_must_say_how_many_key_heads_it_has() -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "num_key_value_heads"}
    with pytest.raises(ConfigError, match="num_key_value_heads"):
        architecture_from_config({**config, "model_type": "mixtral"})


def test_agreeing_facts_have_no_mismatch_whatever_the_context() -> None:
    facts = architecture_from_config(LLAMA_8B)
    assert mismatches(replace(facts, context=8192), facts) == []


def test_mismatches_name_both_values() -> None:
    facts = replace(architecture_from_config(LLAMA_8B), layers=80, tied_embeddings=True)
    layers, tied = mismatches(facts, architecture_from_config(LLAMA_8B))
    assert "layers is 80" in layers
    assert "32 in the checkpoint" in layers
    assert tied.startswith("tied_embeddings is True")
