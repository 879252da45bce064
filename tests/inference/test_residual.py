"""The residual stream: whole or truncated, dispatched or not, padded or alone, the numbers that blocks pass on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers
from torch import Tensor, nn

from probegrid.errors import CheckpointError, ConfigError
from probegrid.inference import attention
from probegrid.inference.residual import ResidualReader, Row, Rows, prefix_of, ways
from probegrid.models.blocks import decoder_blocks

torch.set_num_threads(1)

ROWS = [[1, *range(30, 41)], [1, 50, 51, 52], [1, 60, 61, 62, 63, 64, 65]]
SPANS = [[(11, 12), (0, 12)], [(3, 4)], [(2, 5), (6, 7), (6, 7)]]
TINY: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
GPT2 = {
    "n_layer": 3,
    "n_embd": 32,
    "n_head": 4,
    "vocab_size": 96,
    "n_positions": 64,
    "initializer_range": 0.3,
}
OPT = {
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 64,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "init_std": 0.3,
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**TINY),
    "qwen2": lambda: transformers.Qwen2Config(**TINY),
    "qwen3": lambda: transformers.Qwen3Config(**TINY),
    "mistral": lambda: transformers.MistralConfig(**TINY, sliding_window=4),
    "mixtral": lambda: transformers.MixtralConfig(**TINY, num_local_experts=4),
    "gemma2": lambda: transformers.Gemma2Config(**TINY, sliding_window=4, query_pre_attn_scalar=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(**TINY, sliding_window=4, query_pre_attn_scalar=8),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**TINY),
    "opt": lambda: transformers.OPTConfig(**OPT),
}


def build(family: str) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[family](), dtype=torch.float32).eval()


def one_by_one(
    model: Any,
    blocks: nn.ModuleList,
    rows: Sequence[list[int]] = ROWS,
    of_rows: Sequence[list[tuple[int, int]]] = SPANS,
) -> dict[int, Tensor]:
    """Every layer of every span, by a pass for each row alone, the mean taken in a loop: [n, d] a layer."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in range(len(blocks) + 1)}
    for row, spans in zip(rows, of_rows, strict=True):
        stream = stream_of(model, blocks, row)
        for layer, hidden in enumerate(stream):
            found[layer] += [sum(hidden[0, start:end]) / (end - start) for start, end in spans]
    return {layer: torch.stack(values) for layer, values in found.items()}


def stream_of(model: Any, blocks: nn.ModuleList, row: list[int]) -> list[Tensor]:
    """Layer 0 to the last [1, T, d], each as a block reads or returns it."""
    stream: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        stream.append(output if isinstance(output, Tensor) else output[0])

    handles = [blocks[0].register_forward_pre_hook(lambda _module, args: stream.append(args[0]))]
    handles += [block.register_forward_hook(keep) for block in blocks]
    with torch.inference_mode():
        model(torch.tensor([row]))
    for handle in handles:
        handle.remove()
    return stream


@pytest.mark.parametrize("family", CONFIGS)
def test_padded_batches_equal_single_rows(family: str) -> None:
    model = build(family)
    expected = one_by_one(model, decoder_blocks(model))
    for layers in ([0, 1, 2, 3], [2], [0], [3]):
        read = ResidualReader(model, layers).read(ROWS, SPANS, dtype=torch.float32)
        assert list(read) == layers
        for layer, values in read.items():
            assert values.shape == (6, 32)
            torch.testing.assert_close(values, expected[layer], rtol=1e-5, atol=3e-5)  # sums in another order


PREFIX = [1, *range(70, 83)]
QUESTIONS = [[20, 21, 22, 23, 24], [20, 21, 25], [26, 27, 28, 29, 30, 31, 32]]
SAMPLES = [[40], [41, 42, 43], [41, 42, 44, 45], [46, 47]]
SAMPLED = [[*PREFIX, *question, *sample] for question in QUESTIONS for sample in SAMPLES]
READ = [[(len(row) - 1, len(row)), (15, len(row))] for row in SAMPLED]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("queries", [256, 5])
def test_rows_that_share_prefixes_equal_single_rows(
    family: str, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 4 end within samples, questions and the prefix, which is read in three passes."""
    monkeypatch.setattr(attention, "_TREE_QUERIES", queries)
    model = build(family)
    expected = one_by_one(model, decoder_blocks(model), SAMPLED, READ)
    for layers in ([0, 1, 2, 3], [2], [0]):
        reader = ResidualReader(model, layers, Rows.shared, PREFIX, pass_tokens=6)
        for batch in (slice(0, 3), slice(3, 12)):
            read = reader.read(SAMPLED[batch], READ[batch], dtype=torch.float32)
            for layer, values in read.items():
                wanted = expected[layer].unflatten(0, (-1, 2))[batch].flatten(0, 1)
                torch.testing.assert_close(values, wanted, rtol=1e-4, atol=3e-5)


def test_what_rows_share_is_computed_once() -> None:
    model = build("llama")
    passes: list[int] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda _, args: passes.append(args[0].shape[1]))
    reader = ResidualReader(model, [2], Rows.shared, PREFIX)
    reader.read(SAMPLED[:8], READ[:8])
    reader.read(SAMPLED[8:], READ[8:])
    samples = 1 + 3 + 2 + 2  # of four samples of 1, 3, 4 and 2 tokens two begin with the same two
    assert passes == [len(PREFIX), (2 + 3 + samples) + (1 + samples), 7 + samples]


def test_prefixes_are_shared_where_most_of_it_is_read_again_and_again() -> None:
    passages = list(map(Row, SAMPLED, READ))
    assert ways(build("llama"), passages)[0] is Rows.shared
    assert Rows.shared not in ways(build("llama"), passages[::6])
    assert Rows.shared not in ways(build("llama"), list(map(Row, ROWS, SPANS)))
    assert prefix_of(passages) == PREFIX
    # nothing is read of it, and every row keeps a token
    assert prefix_of([*passages, Row(SAMPLED[0], [(5, 9)])]) == PREFIX[:5]
    assert prefix_of([Row([1, 2, 3], [(2, 3)]), Row([1, 2, 3, 4], [(3, 4)])]) == [1, 2]


def test_values_are_bfloat16_unless_asked_otherwise() -> None:
    reader = ResidualReader(build("llama"), [1])
    exact = reader.read(ROWS, SPANS, dtype=torch.float32)[1]
    rounded = reader.read(ROWS, SPANS)[1]
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, exact.to(torch.bfloat16))


def test_nothing_is_computed_behind_the_deepest_layer_and_no_hook_is_left() -> None:
    model = build("llama")
    ran: list[int] = []
    for index, block in enumerate(model.model.layers):
        block.register_forward_pre_hook(lambda _module, _args, index=index: ran.append(index))
    hooks = [len(block._forward_hooks) + len(block._forward_pre_hooks) for block in model.model.layers]
    for layer, expected in ((2, [0, 1]), (1, [0]), (0, [])):
        ran.clear()
        ResidualReader(model, [layer]).read(ROWS, SPANS)
        assert [index for index in ran if index < layer] == expected
        assert max(ran, default=0) <= layer
    assert [len(b._forward_hooks) + len(b._forward_pre_hooks) for b in model.model.layers] == hooks


def test_blocks_that_return_a_tuple() -> None:
    """As those of transformers 4; the first element of a tensor would be row 0."""
    model = build("llama")
    expected = ResidualReader(model, [2]).read(ROWS, SPANS)[2]
    last = model.model.layers[1]
    last.register_forward_hook(lambda _module, _args, output: (output, "attention weights"))
    assert torch.equal(ResidualReader(model, [2]).read(ROWS, SPANS)[2], expected)


@pytest.mark.parametrize("where", ["cpu_offload", "disk", "half on disk"])
def test_a_dispatched_model(where: str, tmp_path: Path) -> None:
    """Weights that wait elsewhere are on the meta device until accelerate's hooks bring them."""
    expected = ResidualReader(build("llama"), [0, 1, 3]).read(ROWS, SPANS)
    model = build("llama")
    if where == "cpu_offload":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        places = {
            "model.embed_tokens": "disk",
            "model.rotary_emb": "cpu",
            "model.norm": "cpu",
            "lm_head": "disk",
        }
        places |= {
            f"model.layers.{block}": "disk" if where == "disk" or block else "cpu" for block in range(3)
        }
        accelerate.dispatch_model(model, places, offload_dir=tmp_path, force_hooks=True)
    assert model.get_input_embeddings().weight.device.type == "meta"
    reader = ResidualReader(model, [0, 1, 3])
    for _ in range(2):  # ended in the middle, the pass leaves everything as it was
        read = reader.read(ROWS, SPANS)
        assert all(torch.equal(read[layer], expected[layer]) for layer in expected)
    assert model.model.layers[0 if where == "disk" else 1].mlp.up_proj.weight.device.type == "meta"


def test_layers_that_there_are_not() -> None:
    with pytest.raises(ConfigError, match=r"layers=\[1, 4\]: the model has 3 blocks.* to 3"):
        ResidualReader(build("llama"), [4, 1])


def test_blocks_that_cannot_be_found() -> None:
    model = build("gpt2")
    model.transformer.more = nn.ModuleList(nn.Identity() for _ in range(3))
    with pytest.raises(CheckpointError, match="the blocks of GPT2LMHeadModel cannot be found: 2 of"):
        decoder_blocks(model)
