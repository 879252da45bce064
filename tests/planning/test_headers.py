"""Of the tensors of a larger model's files, those of its decoder are counted, by names alone."""

from __future__ import annotations

import pytest

from probegrid.planning.headers import TensorHeader, weights_by_headers

BLOCK = {"self_attn.q_proj.weight": (8, 8), "mlp.up_proj.weight": (16, 8), "input_layernorm.weight": (8,)}
OF_A_BLOCK = 8 * 8 + 16 * 8 + 8
DECODER = {
    "embed_tokens.weight": (32, 8),
    "norm.weight": (8,),
    **{f"layers.{index}.{name}": shape for index in range(3) for name, shape in BLOCK.items()},
}


def headers(shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorHeader]:
    return {name: TensorHeader("BF16", shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "tower",
    [
        [
            "blocks.0.attn.qkv.weight",
            "blocks.1.mlp.linear_fc1.weight",
            "pos_embed.weight",
            "patch_embed.proj.weight",
        ],
        ["deepstack_merger_list.0.linear_fc1.weight", "merger.norm.weight"],
        [
            "model.sam_model.blocks.0.mlp.lin1.weight",
            "model.sam_model.net_2.weight",
            "model.sam_model.neck.0.weight",
        ],
        ["mlp_AR.linear_1.weight", "visual.vision_model.encoder.layers.0.mlp.fc1.weight"],
        ["patch_merger.merging_layer.weight", "pre_mm_projector_norm.weight"],
        ["model.embed_tokens_extend.audio_embed.encoder.encoders.0.conv.glu.weight"],
        ["mtp.layers.0.self_attn.q_proj.weight", "model.mtp_block.layers.0.mlp.up_proj.weight"],
    ],
)
@pytest.mark.parametrize("before", ["", "model.", "model.language_model."])
def test_what_sees_hears_or_looks_ahead_is_not_counted(tower: list[str], before: str) -> None:
    own = {before + name: shape for name, shape in DECODER.items()}
    found = weights_by_headers(headers({**own, **dict.fromkeys(tower, (1000, 8))}), 3, tied=True)
    assert (found.embedding, found.tail, found.head) == (32 * 8, 8, 0)
    (block,) = found.blocks
    assert (block.count, block.matrices + block.others) == (3, OF_A_BLOCK)


def test_blocks_under_two_names_of_which_none_has_all_are_all_counted() -> None:
    """A decoder whose kinds of blocks have lists of their own."""
    names = {f"mamba.layers.{index}.mlp.up_proj.weight": (16, 8) for index in (0, 2)}
    names["attention.layers.1.mlp.up_proj.weight"] = (16, 8)
    (block,) = weights_by_headers(headers({"embed_tokens.weight": (32, 8), **names}), 3, tied=True).blocks
    assert (block.count, block.matrices) == (3, 16 * 8)


def test_a_head_that_is_the_embedding_may_have_more_than_that() -> None:
    besides = {
        "embeddings.norm.weight": (8,),  # as long as the head's own norm
        "lm_head.weight": (32, 8),
        "lm_head.dense.weight": (8, 8),
        "lm_head.norm.weight": (8,),
    }
    shapes = headers({**DECODER, **besides})
    assert weights_by_headers(shapes, 3, tied=True).head == 8 * 8 + 8
    assert weights_by_headers(shapes, 3, tied=False).head == 32 * 8 + 8 * 8 + 8
