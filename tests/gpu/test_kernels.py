"""Our kernels against attention written out in float64, and against bitsandbytes' unpacking."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
HEADS = [(8, 2, 128), (7, 1, 64), (12, 4, 96), (4, 4, 80), (64, 8, 128), (16, 8, 256), (9, 3, 64)]
SCALE = 0.11


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


def reference(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One token [H, d] over keys and values [S, K, d]."""
    groups = query.shape[0] // keys.shape[1]
    k, v = (part.double().repeat_interleave(groups, 1) for part in (keys, values))
    weights = (torch.einsum("hd,shd->hs", query.double(), k) * SCALE).softmax(-1)
    return torch.einsum("hs,shd->hd", weights, v)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    assert found.isfinite().all()
    assert float((found.double() - wanted).norm() / wanted.norm()) < 6e-3


@pytest.mark.parametrize("prefix", [0, 1, 63, 300])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), HEADS)
def test_tokens_attend_to_the_prefix_and_to_their_rows(
    heads: int, kv_heads: int, width: int, prefix: int
) -> None:
    from probegrid.inference.attention import RowCache, Softmax, attend_rows
    from probegrid.inference.layout import Layout

    torch.manual_seed(heads + prefix)
    counts = [1, 40, 3, 130, 17]
    n = sum(counts)
    # as transformers gives them: views of [1, heads, N, d]
    query = draw(1, n, heads, width)[0]
    keys, values = draw(n, kv_heads, width), draw(n, kv_heads, 2 * width)[..., width:]
    shared = (draw(prefix, kv_heads, width), draw(prefix, kv_heads, width)) if prefix else None
    layout = Layout.of(counts, [0] * len(counts), first_row=2).to(query.device)
    cache = RowCache(7, 131, keys)
    found = attend_rows(query, (keys, values), layout, cache, shared, Softmax(SCALE), is_plain=True)
    start, wanted = 0, []
    for row, count in enumerate(counts):
        assert torch.equal(cache.keys[2 + row, :count], keys[start : start + count])
        assert torch.equal(cache.values[2 + row, :count], values[start : start + count])
        for token in range(start, start + count):
            parts = (keys[start : token + 1], values[start : token + 1])
            if shared:
                parts = tuple(torch.cat(pair) for pair in zip(shared, parts, strict=True))
            wanted.append(reference(query[token], *parts))
        start += count
    assert_near(found, torch.stack(wanted))


@pytest.mark.parametrize("longest_run", [1, 2, 64])
@pytest.mark.parametrize("prefix", [0, 70])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), HEADS)
def test_new_tokens_attend_to_prefix_question_and_answer(
    heads: int, kv_heads: int, width: int, prefix: int, longest_run: int
) -> None:
    from probegrid.inference.attention import RowCache, Softmax, attend_step
    from probegrid.inference.layout import Growth

    torch.manual_seed(heads + prefix)
    lengths, rows, slots, room, grown = [5, 130, 64], [0, 0, 2, 1, 1, 1, 0], 131, 40, 33
    questions, own = RowCache(3, slots, draw(1, kv_heads, width)), RowCache(7, room, draw(1, kv_heads, width))
    for tensor in (questions.keys, questions.values, own.keys, own.values):
        tensor.copy_(draw(*tensor.shape))
    shared = (draw(prefix, kv_heads, width), draw(prefix, kv_heads, width)) if prefix else None
    query, new = draw(7, heads, width), (draw(7, kv_heads, width), draw(7, kv_heads, width))
    growth = Growth(rows, lengths, slots, grown, longest_run)
    found = attend_step(query, new, growth, questions, own, shared, Softmax(SCALE), is_plain=True)
    wanted = []
    for row, question in enumerate(rows):
        assert torch.equal(own.keys[row, grown], new[0][row])
        parts = [*([shared] if shared else [])]
        parts.append(
            (questions.keys[question, : lengths[question]], questions.values[question, : lengths[question]])
        )
        parts.append((own.keys[row, : grown + 1], own.values[row, : grown + 1]))
        wanted.append(reference(query[row], *(torch.cat(pair) for pair in zip(*parts, strict=True))))
    assert_near(found, torch.stack(wanted))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64, 64), (1024, 8192), (8192, 28672), (576, 1536), (3, 192)])
def test_nf4_is_unpacked_bit_for_bit_as_bitsandbytes_does(shape: tuple[int, int], dtype: torch.dtype) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    from probegrid.inference.unpacking import is_unpacked_here, multiply, unpacked

    torch.manual_seed(0)
    rows, columns = shape
    layer = Linear4bit(columns, rows, bias=True, compute_dtype=dtype, quant_type="nf4")
    torch.nn.init.normal_(layer.weight, std=0.02)
    layer = layer.to(dtype).to("cuda")
    assert is_unpacked_here(layer)
    wanted = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    found = unpacked(layer.weight, dtype)
    assert (found.shape, found.dtype) == (shape, dtype)
    assert torch.equal(found, wanted)
    for tokens in (5, 2000):
        inputs = torch.randn(1, tokens, columns, device="cuda", dtype=dtype)
        with torch.inference_mode():
            assert torch.equal(multiply(layer, inputs), layer(inputs))
