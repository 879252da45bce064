"""Which examples a probe is trained on, chosen by, and measured on.

Knows conversations, texts and sources as strings; nothing of models or data sets. Methods:

- ``leakfree``: conversations and statement texts are joined where they meet, and each connected component stays
  whole, so that no conversation and no text is on two sides.
- ``by_conversation``: conversations stay whole; a text may recur.
- ``leave_one_source_out``: a fold for each source, which is its test split. Other statements that share a
  conversation or a text with it are left unused; the rest is divided as by ``leakfree``.
- ``random``: every example for itself, as in much of the literature.

Whatever the method, the group of an example, which a bootstrap keeps whole, is its component. What leaks is measured
on the outcome and noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probegrid.errors import DataError
from probegrid.evaluation.checks import BoolArray, FloatArray, IntArray, as_labels

METHODS = ("leakfree", "by_conversation", "leave_one_source_out", "random")
TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"
FEWEST_PER_CLASS = 2
"""Examples that every split must hold of each class."""

_PARTS = (TRAIN, VALIDATION, TEST)
_SHARES = np.array([0.6, 0.2, 0.2])

StrArray = NDArray[np.str_]


@dataclass(frozen=True)
class Fold:
    """One division of the examples.

    Attributes:
        source: the source that is left out for the test; empty for the other methods.
        parts: `str[n]`, ``train``, ``validation``, ``test`` or ``unused``.
    """

    source: str
    parts: StrArray


@dataclass(frozen=True)
class Division:
    """The folds of a data set: one, or one a source.

    Attributes:
        folds: each trains and tests a probe of its own.
        groups: `str[n]`, the component of each example, by the name of its first conversation.
        notes: what to know of the numbers; a leak begins with ``leaky:``.
    """

    folds: tuple[Fold, ...]
    groups: StrArray
    notes: tuple[str, ...]


def divide(
    method: str,
    labels: ArrayLike,
    conversations: Sequence[str],
    texts: Sequence[str],
    sources: Sequence[str],
    *,
    seed: int,
) -> Division:
    """Divide n examples into train, validation and test, 60/20/20 by examples as far as whole groups allow.

    Args:
        method: one of `METHODS`.
        labels: `bool[n]`; each split gets its share of each class as far as whole groups allow.
        conversations: conversation of each example.
        texts: statement of each example; equal texts are one.
        sources: source of each example, read by ``leave_one_source_out`` alone.
        seed: of this division alone, at least 0.

    Raises:
        DataError: a split holds fewer than `FEWEST_PER_CLASS` examples of a class, or there is a single source.
        ValueError: lengths differ, or the method is unknown.
    """
    truth = as_labels(labels)
    if any(len(column) != len(truth) for column in (conversations, texts, sources)):
        raise ValueError(
            f"a conversation, a text and a source for each of {len(truth)} examples are needed, "
            f"got {len(conversations)}, {len(texts)} and {len(sources)}"
        )
    generator = np.random.default_rng([seed, *b"splits"])
    talk, text = _codes(conversations), _codes(texts)
    components = _components(talk, text)
    if method == "leave_one_source_out":
        folds = _leave_each_source_out(truth, talk, text, sources, generator)
    else:
        units = {"leakfree": components, "by_conversation": talk, "random": np.arange(len(truth))}.get(method)
        if units is None:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        folds = (Fold("", _assign(units, truth, _SHARES, generator)),)
    for fold in folds:
        _check_classes(fold, truth, method)
    _, first = np.unique(components, return_index=True)
    groups = np.asarray(conversations, dtype=np.str_)[first[components]]
    return Division(folds, groups, tuple(note for fold in folds for note in _notes(fold, talk, text)))


def joined_groups(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The coarsest grouping that two groupings of n examples leave: whatever either keeps together, stays together.

    Args:
        first: group of each example.
        second: group of each example, by the other grouping.

    Returns:
        A name a group, n of them.
    """
    return [str(group) for group in _components(_codes(first), _codes(second))]


def _codes(names: Sequence[str]) -> IntArray:
    """Number the distinct names from 0: `intp[n]`."""
    return np.unique(np.asarray(names, dtype=object), return_inverse=True)[1]


def _components(talk: IntArray, text: IntArray) -> IntArray:
    """Connected component of each example in the graph that joins its conversation with its text: `intp[n]`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(talk):
        return talk
    first_text = int(talk.max()) + 1
    nodes = first_text + int(text.max()) + 1
    graph = coo_array((np.ones(len(talk)), (talk, first_text + text)), shape=(nodes, nodes))
    return _codes(connected_components(graph, directed=False)[1][talk])


def _assign(
    units: IntArray, truth: BoolArray, shares: FloatArray, generator: np.random.Generator
) -> StrArray:
    """Give each unit, whole, to one of the first `len(shares)` parts: `str[n]`.

    Units come from the largest to the smallest, in random order where equal. Each goes to a part drawn with the odds
    of the room left for its classes, among those with room for all of it; where none has, to the part furthest
    from being full. So large units are spread by chance and the small ones even the numbers out.
    """
    sizes = np.stack([np.bincount(units, weights=truth == label) for label in (False, True)], axis=1)
    targets = shares[:, None] * sizes.sum(axis=0)
    room = targets.copy()
    order = generator.permutation(len(sizes))
    part_of = np.empty(len(sizes), dtype=np.intp)
    for unit in order[np.argsort(-sizes[order].sum(axis=1), kind="stable")]:
        size = sizes[unit]
        odds = (room @ size) * (room >= size - 1e-9).all(axis=1, where=size > 0)
        if odds.any():
            part = int(generator.choice(len(shares), p=odds / odds.sum()))
        else:
            part = int(np.argmax((room / np.maximum(targets, 1e-9)) @ size))
        room[part] -= size
        part_of[unit] = part
    return np.array(_PARTS)[part_of[units]]


def _leave_each_source_out(
    truth: BoolArray,
    talk: IntArray,
    text: IntArray,
    sources: Sequence[str],
    generator: np.random.Generator,
) -> tuple[Fold, ...]:
    source_of = np.asarray(sources, dtype=object)
    names = sorted(set(sources))
    if len(names) < 2:
        raise DataError(
            f"split=leave_one_source_out needs two sources or more, and all examples are of one ('{names[0]}'); "
            "use split=leakfree, or a dataset whose statements name their sources."
        )
    shares = _SHARES[:2] / _SHARES[:2].sum()
    folds = []
    for name in names:
        test = source_of == name
        shared = np.isin(talk, talk[test]) | np.isin(text, text[test])
        parts = np.where(test, TEST, UNUSED)
        if not shared.all():
            rest = _components(talk[~shared], text[~shared])
            parts = parts.astype("<U10")
            parts[~shared] = _assign(rest, truth[~shared], shares, generator)
        folds.append(Fold(name, parts))
    return tuple(folds)


def _check_classes(fold: Fold, truth: BoolArray, method: str) -> None:
    for part in _PARTS:
        for label in (True, False):
            count = int(np.count_nonzero((fold.parts == part) & (truth == label)))
            if count < FEWEST_PER_CLASS:
                left_out = f" that leaves out '{fold.source}'" if fold.source else ""
                others = ", ".join(other for other in METHODS if other != method)
                raise DataError(
                    f"split={method}: the {part} split{left_out} holds {count} examples whose label is "
                    f"{str(label).lower()}, and {FEWEST_PER_CLASS} are needed; raise dataset.num_samples, change "
                    f"probe.seed, or choose another split ({others})."
                )


def _notes(fold: Fold, talk: IntArray, text: IntArray) -> list[str]:
    """What this fold leaks, and what it leaves unused."""
    train, test = fold.parts == TRAIN, fold.parts == TEST
    notes = []
    for what, codes in (
        ("occur word for word in the train split", text),
        ("share a conversation with it", talk),
    ):
        shared = float(np.isin(codes[test], codes[train]).mean())
        if shared > 0:
            notes.append(f"leaky: {shared:.0%} of the test examples {what}")
    if unused := int(np.count_nonzero(fold.parts == UNUSED)):
        notes.append(
            f"without '{fold.source}', {unused} of {np.count_nonzero(~test)} examples are not used: they share a "
            "conversation or a text with it"
        )
    return notes
