"""Relative positions that do not occur are left out, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    PreTrainedConfig,
    PreTrainedModel,
)

from probegrid.models.relative_positions import only_near

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
}
DEBERTA = {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}


def build(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    "config",
    [
        DebertaV2Config(**DEBERTA, position_buckets=16, norm_rel_ebd="layer_norm"),
        DebertaV2Config(**DEBERTA, position_buckets=16, share_att_key=True),
        DebertaV2Config(**DEBERTA),
        DebertaV2Config(**SMALL),
        DebertaConfig(**DEBERTA),
        BertConfig(**SMALL),
    ],
    ids=["buckets", "shared keys", "every position", "absolute", "first version", "bert"],
)
@pytest.mark.parametrize("length", [2, 9, 15, 16, 40])
def test_the_scores_are_the_same(config: PreTrainedConfig, length: int) -> None:
    model = build(config)
    ids = torch.randint(1, 50, (3, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[0, length // 2 + 1 :] = 0
    with torch.inference_mode():
        whole = model(input_ids=ids, attention_mask=mask).logits
        with only_near(model, length):
            near = model(input_ids=ids, attention_mask=mask).logits
        again = model(input_ids=ids, attention_mask=mask).logits
    assert whole.std() > 0.1
    torch.testing.assert_close(near, whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(again, whole)


def test_fewer_positions_are_scored() -> None:
    model = build(DebertaV2Config(**DEBERTA, position_buckets=64))
    rows: list[int] = []
    projection = model.base_model.encoder.layer[0].attention.self.pos_key_proj
    projection.register_forward_hook(lambda _module, args, _output: rows.append(args[0].shape[1]))
    ids = torch.ones(1, 10, dtype=torch.long)
    with torch.inference_mode():
        model(input_ids=ids)
        with only_near(model, 10):
            model(input_ids=ids)
    assert rows == [128, 20]
