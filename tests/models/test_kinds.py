"""What is no decoder is called what it is, in one sentence, before anything is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from probegrid.cell.lookup import Lookup
from probegrid.errors import CheckpointError
from probegrid.models.kinds import _families, other_kind
from probegrid.schema import ModelConfig


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "an encoder"),
        ({"model_type": "roberta"}, "an encoder"),
        ({"model_type": "deberta-v2", "architectures": ["DebertaV2Model"]}, "an encoder"),
        ({"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}, "an encoder"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "an encoder-decoder"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "an encoder-decoder"),
        (
            {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]},
            "a classifier or a reward model",
        ),
        (
            {"model_type": "mistral", "architectures": ["MistralForTokenClassification"]},
            "a classifier of tokens",
        ),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForRewardModel"]}, "a reward model"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, None),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}, None),
        ({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}, None),
        ({"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own"}}, None),
        ({"model_type": "llama"}, None),
    ],
)
def test_kinds_are_told_by_their_config(config: dict[str, Any], kind: str | None) -> None:
    assert other_kind(config) == kind


def test_tables_of_transformers_are_read_as_it_has_them() -> None:
    from transformers.models.auto import modeling_auto

    for name in ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"):
        assert _families(name) == frozenset(getattr(modeling_auto, name))


def test_a_reward_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(
        CheckpointError, match=r"is a classifier or a reward model \(LlamaForSequence"
    ) as refusal:
        Lookup().checkpoint(ModelConfig(path=str(tmp_path)))
    assert "\n" not in str(refusal.value)
