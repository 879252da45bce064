"""Splits: nothing shared, nothing lost, balanced, repeatable; and what they refuse."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probegrid.data import load
from probegrid.data.example import StatementSet
from probegrid.data.ntml import NtmlConfig
from probegrid.errors import DataError
from probegrid.evaluation.splits import METHODS, TEST, TRAIN, UNUSED, VALIDATION, Division, divide

PARTS = (TRAIN, VALIDATION, TEST)
Rows = tuple[list[bool], list[str], list[str], list[str]]


def columns(rows: Sequence[tuple[bool, str, str, str]]) -> Rows:
    labels, conversations, texts, sources = map(list, zip(*rows, strict=True))
    return labels, conversations, texts, sources


@st.composite
def examples(draw: st.DrawFn) -> Rows:
    """Conversations of one to six statements, some texts recurring, a text's label and source its own."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=40, max_size=80))
    n_texts = draw(st.integers(3 * len(sizes), 8 * len(sizes)))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    rows = []
    for conversation, size in enumerate(sizes):
        for text in generator.choice(n_texts, size, replace=False):
            rows.append((bool(text % 2), f"c{conversation}", f"t{text}", f"s{text % 3}"))
    return columns(rows)


def shared(values: Sequence[str], first: np.ndarray, second: np.ndarray) -> set[str]:
    names = np.asarray(values)
    return set(names[first]) & set(names[second])


def try_divide(method: str, data: Rows, seed: int) -> Division | None:
    """A division, or None where whole groups leave a split without a class."""
    try:
        return divide(method, *data, seed=seed)
    except DataError as error:
        assert "holds" in str(error)
        return None


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@given(data=examples(), seed=st.integers(0, 100))
def test_what_every_method_promises(method: str, data: Rows, seed: int) -> None:
    division = try_divide(method, data, seed)
    if division is None:
        return
    again = divide(method, *data, seed=seed)
    _, conversations, texts, sources = data
    for fold, same in zip(division.folds, again.folds, strict=True):
        assert (fold.parts == same.parts).all()
        is_pruned = any("is left out" in note for note in division.notes)
        assert set(fold.parts) <= {
            *PARTS,
            *({UNUSED} if method == "leave_one_source_out" or is_pruned else ()),
        }
        for first, second in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
            a, b = fold.parts == first, fold.parts == second
            if method != "random":
                assert not shared(conversations, a, b)
            if method in ("leakfree", "prune", "leave_one_source_out"):
                assert not shared(texts, a, b)
        if method == "leave_one_source_out":
            assert set(np.asarray(sources)[fold.parts == TEST]) == {fold.source}
            assert not (np.asarray(sources)[fold.parts != TEST] == fold.source).any()
    groups = {
        (conversation, group) for conversation, group in zip(conversations, division.groups, strict=True)
    }
    assert len(groups) == len(set(conversations)), "a conversation lies in two groups"
    assert {group for _, group in groups} <= set(conversations)
    leaky = any(note.startswith("leaky") for note in division.notes)
    assert not (leaky and method in ("leakfree", "prune", "leave_one_source_out"))


@pytest.mark.parametrize("method", ["leakfree", "by_conversation", "random"])
def test_shares_and_labels_are_balanced(method: str) -> None:
    generator = np.random.default_rng(0)
    data = columns([(bool(generator.random() < 0.3), f"c{i // 4}", f"t{i}", "") for i in range(2000)])
    fold = divide(method, *data, seed=1).folds[0]
    for part, share in zip(PARTS, (0.6, 0.2, 0.2), strict=True):
        chosen = fold.parts == part
        assert chosen.mean() == pytest.approx(share, abs=0.005)
        assert np.asarray(data[0])[chosen].mean() == pytest.approx(np.mean(data[0]), abs=0.01)
    assert (divide(method, *data, seed=2).folds[0].parts != fold.parts).any()


def test_large_groups_are_spread_by_chance() -> None:
    sizes = [60] + [1] * 540
    data = columns(
        [(i % 2 == 0, f"c{c}", f"t{c}-{i}", "") for c, size in enumerate(sizes) for i in range(size)]
    )
    data[0][60:] = [i % 2 == 0 for i in range(540)]
    parts = [divide("leakfree", *data, seed=seed).folds[0].parts for seed in range(60)]
    homes = [part[0] for part in parts]
    assert {homes.count(part) > 0 for part in PARTS} == {True}
    assert all((part == TEST).sum() == 120 for part in parts)


def test_leaks_are_measured() -> None:
    data = columns([(i % 2 == 0, f"c{i // 6}", f"t{i % 300}", "") for i in range(600)])
    assert divide("leakfree", *data, seed=0).notes == ()
    (note,) = divide("by_conversation", *data, seed=0).notes
    assert note.startswith("leaky: ")
    assert note.endswith("% of the test examples occur word for word in the train split")
    notes = divide("random", *data, seed=0).notes
    assert notes[-1].endswith("% of the test examples share a conversation with it")


def test_left_out_neighbours_are_noted() -> None:
    data = columns([(i % 2 == 0, f"c{i // 2}", f"t{i}", f"s{i % 7 // 5}") for i in range(300)])
    division = divide("leave_one_source_out", *data, seed=0)
    assert [fold.source for fold in division.folds] == ["s0", "s1"]
    for fold, note in zip(division.folds, division.notes, strict=True):
        unused = (fold.parts == UNUSED).sum()
        assert note.startswith(f"split: without '{fold.source}', {unused} of ")


def test_what_cannot_be_is_refused() -> None:
    one_class = columns([(True, f"c{i}", f"t{i}", "") for i in range(50)])
    with pytest.raises(
        DataError, match="the train split holds 0 examples whose label is false, and 2 are needed"
    ):
        divide("leakfree", *one_class, seed=0)
    one_group = columns([(i % 2 == 0, "c", f"t{i}", "") for i in range(50)])
    with pytest.raises(
        DataError, match=r"the validation split holds 0 .*choose another split \(by_conversation"
    ):
        divide("leakfree", *one_group, seed=0)
    one_source = columns([(i % 2 == 0, f"c{i}", f"t{i}", "cities") for i in range(50)])
    with pytest.raises(
        DataError, match=r"needs two sources or more, and all examples are of one \('cities'\)"
    ):
        divide("leave_one_source_out", *one_source, seed=0)
    entangled = columns([(i // 2 % 2 == 0, f"c{i // 4}", f"t{i}", f"s{i % 2}") for i in range(80)])
    with pytest.raises(DataError, match="the train split that leaves out 's0' holds 0"):
        divide("leave_one_source_out", *entangled, seed=0)
    with pytest.raises(ValueError, match="method must be one of leakfree"):
        divide("leakfre", *one_source, seed=0)
    with pytest.raises(ValueError, match="for each of 50 examples are needed, got 50, 49 and 50"):
        divide("leakfree", one_source[0], one_source[1], one_source[2][1:], one_source[3], seed=0)


@pytest.mark.skipif("PROBEGRID_DATA" not in os.environ, reason="PROBEGRID_DATA is not set")
def test_the_components_of_3t3l() -> None:
    path = Path(os.environ["PROBEGRID_DATA"]) / "ntml/3T3L_500samples.jsonl"
    loaded = load(NtmlConfig(path=str(path), num_samples=500))
    assert isinstance(loaded, StatementSet)
    data = columns(
        [
            (row.label, talk.id, row.text, row.source)
            for talk in loaded.conversations
            for row in talk.statements
        ]
    )
    division = divide("leakfree", *data, seed=0)
    sizes = np.unique(division.groups, return_counts=True)[1]
    assert (len(data[0]), len(sizes)) == (3000, 225)
    assert sizes.max() / 3000 < 0.25
    assert [int((division.folds[0].parts == part).sum()) for part in PARTS] == [1800, 600, 600]
    assert len(divide("leave_one_source_out", *data, seed=0).folds) == 10


def test_what_helps_where_a_split_lacks_a_label_is_what_can() -> None:
    names = [str(number) for number in range(40)]
    for labels, folds, helps in (
        ([False] * 40, 1, "of all 40 examples 0 have this label, too few for any split: raise"),
        ([True] * 35 + [False] * 5, 1, "of all 40 examples 5 have this label"),
        ([True, False] * 20, 30, "are needed; lower probe.folds=30, raise dataset.num_samples"),
    ):
        with pytest.raises(DataError, match=helps):
            divide("random", labels, names, names, names, seed=0, folds=folds)
