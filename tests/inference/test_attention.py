"""Attention over parts equals attention over the whole, written out plainly in float64."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from probegrid.inference.attention import RowCache, Softmax, attend_all, attend_causal, attend_step, merge
from probegrid.inference.layout import Growth, Layout

SMALL = st.integers(1, 5)
SCALE = 0.37


def reference(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one token [H, d] to [S, K, d], a head at a time."""
    groups = query.shape[0] // keys.shape[1]
    heads = []
    for head, q in enumerate(query.double()):
        weights = (keys[:, head // groups].double() @ q * SCALE).softmax(0)
        heads.append(weights @ values[:, head // groups].double())
    return torch.stack(heads).float()


def draw_tensors(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def assert_near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@given(st.integers(0, 9999), SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, st.sampled_from([0.1, 1.0, 30.0]))
def test_merged_parts_are_the_whole(
    seed: int, n: int, kv_heads: int, groups: int, width: int, first: int, second: int, spread: float
) -> None:
    size = first + second
    query, keys, values = draw_tensors(
        seed, (n, kv_heads * groups, width), (size, kv_heads, width), (size, kv_heads, width)
    )
    query *= spread
    before = attend_all(query, keys[:first], values[:first], SCALE)
    after = attend_all(query, keys[first:], values[first:], SCALE)
    whole = torch.stack([reference(token, keys, values) for token in query])
    assert_near(merge([before, after]), whole)
    assert_near(merge([attend_all(query, keys, values, SCALE)]), whole)


@given(st.integers(0, 9999), st.integers(1, 9), SMALL, SMALL, SMALL)
def test_causal_attention_sees_what_came_before(
    seed: int, n: int, kv_heads: int, groups: int, width: int
) -> None:
    query, keys, values = draw_tensors(
        seed, (n, kv_heads * groups, width), (n, kv_heads, width), (n, kv_heads, width)
    )
    wanted = [reference(query[token], keys[: token + 1], values[: token + 1]) for token in range(n)]
    assert_near(merge([attend_causal(query, keys, values, SCALE)]), torch.stack(wanted))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, list[int]]]:
    """What may happen to a batch: rows are filled, group by group; then all grow, and some are kept, in any order."""
    n_rows = draw(st.integers(1, 5))
    events = [("fill", draw(st.lists(st.integers(1, 4), min_size=n_rows, max_size=n_rows)))]
    for _ in range(draw(st.integers(0, 4))):
        rows = draw(st.lists(st.integers(0, n_rows - 1), min_size=1, max_size=6))
        events.append(("keep", rows))
        n_rows = len(rows)
        events.append(("grow", draw(st.lists(st.integers(1, 3), min_size=n_rows, max_size=n_rows))))
    return events


@given(st.integers(0, 9999), SMALL, st.integers(1, 3), histories(), st.data())
def test_each_row_attends_to_its_own_tokens_alone(
    seed: int, kv_heads: int, groups: int, history: list[tuple[str, list[int]]], data: st.DataObject
) -> None:
    width = 4
    cache = RowCache(len(history[0][1]), 4 + 4 * 3, torch.empty(1, kv_heads, width))
    own: list[list[tuple[Tensor, Tensor]]] = [[] for _ in history[0][1]]
    for step, (event, numbers) in enumerate(history):
        if event == "keep":
            cache.select(torch.tensor(numbers))
            own = [list(own[row]) for row in numbers]
            continue
        cuts = data.draw(st.integers(0, len(numbers))) if event == "fill" else 0
        for first, counts in ((0, numbers[:cuts]), (cuts, numbers[cuts:])):
            if not counts:
                continue
            layout = Layout.of(counts, [len(own[first + row]) for row in range(len(counts))], first)
            n = sum(counts)
            query, keys, values = draw_tensors(
                seed + step + first, (n, kv_heads * groups, width), (n, kv_heads, width), (n, kv_heads, width)
            )
            cache.append(keys, values, layout)
            found, lse = cache.attend(query, layout, Softmax(SCALE))
            assert lse.shape == found.shape[:3]
            found = found.flatten(1, 2)
            for token, row in enumerate(row for row, count in enumerate(counts) for _ in range(count)):
                own[first + row].append((keys[token], values[token]))
                wanted = reference(
                    query[token], *(torch.stack(part) for part in zip(*own[first + row], strict=True))
                )
                assert_near(found[token], wanted)


@given(
    st.integers(0, 9999),
    SMALL,
    st.integers(1, 3),
    st.lists(st.integers(0, 2), min_size=1, max_size=7),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(1, 3),
)
def test_a_step_attends_to_prefix_question_and_answer(
    seed: int, kv_heads: int, groups: int, questions: list[int], grown: int, prefix: int, longest_run: int
) -> None:
    width, lengths, rows = 4, [1, 5, 3], len(questions)
    asked, own = (RowCache(n, slots, torch.empty(1, kv_heads, width)) for n, slots in ((3, 6), (rows, 8)))
    shapes = [(3, 6, kv_heads, width)] * 2 + [(rows, 8, kv_heads, width)] * 2
    asked.keys, asked.values, own.keys, own.values = draw_tensors(seed, *shapes)
    query, key, value, *shared = draw_tensors(
        seed + 1,
        (rows, kv_heads * groups, width),
        *[(rows, kv_heads, width)] * 2,
        *[(prefix, kv_heads, width)] * 2,
    )
    growth = Growth(questions, lengths, 6, grown, longest_run)
    found = attend_step(
        query,
        (key, value),
        growth,
        asked,
        own,
        tuple(shared) if prefix else None,
        Softmax(SCALE),
        is_plain=True,
    )
    for row, question in enumerate(questions):
        parts = [
            tuple(shared),
            (asked.keys[question, : lengths[question]], asked.values[question, : lengths[question]]),
            (own.keys[row, :grown], own.values[row, :grown]),
            (key[row : row + 1], value[row : row + 1]),
        ]
        keys, values = (torch.cat(part) for part in zip(*parts, strict=True))
        assert_near(found[row], reference(query[row], keys, values))
