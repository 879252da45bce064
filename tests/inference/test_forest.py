"""Rows that begin alike as a forest of tokens: each row is in it, and each token sees its own rows' tokens alone."""

from __future__ import annotations

import doctest

import torch
from hypothesis import given
from hypothesis import strategies as st

from probegrid.inference import forest as module
from probegrid.inference.forest import Forest, count, divided

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=12)


@given(rows=ROWS, window=st.none() | st.integers(1, 7))
def test_a_token_sees_those_before_it_in_its_rows_and_no_others(
    rows: list[list[int]], window: int | None
) -> None:
    forest = Forest.of(rows)
    n = len(forest.tokens)
    assert n == count(rows) == len({tuple(row[: end + 1]) for row in rows for end in range(len(row))})
    before: list[set[int]] = [set() for _ in range(n)]
    for row, places in zip(rows, forest.places, strict=True):
        assert forest.tokens[list(places)].tolist() == row
        for depth, place in enumerate(places):
            assert int(forest.depth[place]) == depth
            before[place] = set(places[max(0, depth + 1 - (window or n)) : depth + 1])
    for start in range(0, n, 4):
        begin, visible = forest.seen(start, min(start + 4, n), window)
        for token, sees in enumerate(visible, start):
            assert {begin + int(place) for place in torch.nonzero(sees)} == before[token]


@given(rows=ROWS, most=st.integers(1, 20))
def test_forests_hold_every_row_once_within_the_budget(rows: list[list[int]], most: int) -> None:
    forests = divided(rows, most)
    assert sorted(index for forest in forests for index in forest) == list(range(len(rows)))
    for forest in forests:
        assert len(forest) == 1 or count([rows[index] for index in forest]) <= most


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(module).failed == 0
