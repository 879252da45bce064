"""Which examples a probe is trained on, chosen by, and measured on.

Knows conversations, texts, groups and sources as strings; nothing of models or data sets. Methods:

- ``leakfree``: whatever examples share (a conversation, a text, a group that the data names, what they are about, see
  `subjects`) joins them, and each connected component stays whole, on one side. Where what statements are about would
  join too many, it counts no more, then not near copies; where even texts would, as ``prune``. What was given up is
  noted.
- ``by_conversation``: conversations stay whole; a text may recur.
- ``prune``: as ``leakfree`` with nothing given up: where components cannot be divided, conversations stay whole and
  what recurs is left out of test and validation.
- ``leave_one_source_out``: a fold for each source, which is its test split. Other statements that share anything with
  it are left unused; the rest is divided as by ``leakfree``.
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
from probegrid.evaluation.links import Links, joined

METHODS = ("leakfree", "by_conversation", "prune", "leave_one_source_out", "random")
TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"
FEWEST_PER_CLASS = 2
"""Examples that every split must hold of each class."""

_PARTS = (TRAIN, VALIDATION, TEST)
_SHARES = np.array([0.6, 0.2, 0.2])
_DOMINATING = 0.25  # of the examples in one component is said

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
        notes: what to know of the numbers; a leak begins with ``leaky:``, what is no leak with ``split:``.
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
    groups: Sequence[str] | None = None,
    by_subject: bool = True,
    folds: int = 1,
) -> Division:
    """Divide n examples into train, validation and test, 60/20/20 by examples as far as whole groups allow.

    Args:
        method: one of `METHODS`.
        labels: `bool[n]`; each split gets its share of each class as far as whole groups allow.
        conversations: conversation of each example.
        texts: statement of each example; texts that are equal but for case, outer white space, final punctuation and
            Unicode's form are one.
        sources: source of each example: whose statements are made from one template, and what
            ``leave_one_source_out`` leaves out.
        seed: of this division alone, at least 0.
        groups: a group that the data names, of each example; empty for none.
        by_subject: whether texts are statements, which are about something; else they are compared whole.
        folds: number of parts, each the test split of a fold; 1: a single fold. ``leave_one_source_out`` has its own.

    Raises:
        DataError: a split holds fewer than `FEWEST_PER_CLASS` examples of a class, or there is a single source.
        ValueError: lengths differ, or the method is unknown.
    """
    truth = as_labels(labels)
    named = groups if groups is not None else [""] * len(truth)
    if any(len(column) != len(truth) for column in (conversations, texts, sources, named)):
        raise ValueError(
            f"a conversation, a text and a source for each of {len(truth)} examples are needed, "
            f"got {len(conversations)}, {len(texts)} and {len(sources)}"
        )
    generator = np.random.default_rng([seed, *b"splits"])
    talk = _codes(conversations)
    links = Links.of(conversations, texts, sources, named, by_subject=by_subject)
    if method == "prune":
        links = links.strictest()
    components, given_up = links.components(), list(links.given_up)
    pruned = method in ("prune", "leakfree") and links.is_one
    if method == "leave_one_source_out":
        made = _leave_each_source_out(truth, links, sources, generator)
    else:
        units = {
            "leakfree": talk if pruned else components,
            "prune": talk if pruned else components,
            "by_conversation": talk,
            "random": np.arange(len(truth)),
        }.get(method)
        if units is None:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        made = _folds(units, truth, folds, generator)
        if pruned:
            made = tuple(_prune(fold, links) for fold in made)
    for fold in made:
        _check_classes(fold, truth, method, folds)
    bootstrapped = talk if links.is_one else components
    _, first = np.unique(bootstrapped, return_index=True)
    of_component = np.asarray(conversations, dtype=np.str_)[first[bootstrapped]]
    by_links = method in ("leakfree", "prune", "leave_one_source_out")
    notes = [note for fold in made for note in _notes(fold, talk, links, "split" if by_links else "leaky")]
    if by_links and len(truth):
        notes += given_up + _dominating(components, links.is_one)
    if pruned:
        notes += _left(made)
    return Division(made, of_component, tuple(dict.fromkeys(notes)))


def joined_groups(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The coarsest grouping that two groupings of n examples leave: whatever either keeps together, stays together.

    Args:
        first: group of each example.
        second: group of each example, by the other grouping.

    Returns:
        A name a group, n of them.
    """
    return [str(group) for group in joined([_codes(first), _codes(second)])]


def _codes(names: Sequence[str]) -> IntArray:
    """Number the distinct names from 0: `intp[n]`."""
    return np.unique(np.asarray(names, dtype=object), return_inverse=True)[1]


def _assign(
    units: IntArray, truth: BoolArray, shares: FloatArray, generator: np.random.Generator
) -> StrArray:
    """Give each unit, whole, to train, validation or test, as many of them as shares: `str[n]`."""
    return np.array(_PARTS)[_deal(units, truth, shares, generator)]


def _deal(units: IntArray, truth: BoolArray, shares: FloatArray, generator: np.random.Generator) -> IntArray:
    """Give each unit, whole, to one of `len(shares)` parts: `intp[n]`.

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
    dealt: IntArray = part_of[units]
    return dealt


def _folds(units: IntArray, truth: BoolArray, count: int, generator: np.random.Generator) -> tuple[Fold, ...]:
    """One fold of 60/20/20, or each of several parts as a test split, what is left divided 75/25."""
    if count == 1:
        return (Fold("", _assign(units, truth, _SHARES, generator)),)
    part_of = _deal(units, truth, np.full(count, 1 / count), generator)
    shares = _SHARES[:2] / _SHARES[:2].sum()
    made = []
    for part in range(count):
        parts = np.full(len(truth), TEST, dtype="<U10")
        rest = part_of != part
        parts[rest] = _assign(_codes(units[rest]), truth[rest], shares, generator)
        made.append(Fold("", parts))
    return tuple(made)


def _prune(fold: Fold, links: Links) -> Fold:
    """Leave out of test what train or validation share, and of validation what train does; conversations were whole."""
    parts = fold.parts.astype("<U10")
    for part, earlier in ((VALIDATION, (TRAIN,)), (TEST, (TRAIN, VALIDATION))):
        shared = links.shared(parts == part, np.isin(parts, earlier))
        parts[shared] = UNUSED
    return Fold(fold.source, parts)


def _leave_each_source_out(
    truth: BoolArray,
    links: Links,
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
        kept = ~test & ~links.shared(~test, test)
        parts = np.where(test, TEST, UNUSED)
        if kept.any():
            parts = parts.astype("<U10")
            parts[kept] = _assign(links.components(kept), truth[kept], shares, generator)
        folds.append(Fold(name, parts))
    return tuple(folds)


def _check_classes(fold: Fold, truth: BoolArray, method: str, folds: int) -> None:
    for part in _PARTS:
        for label in (True, False):
            count = int(np.count_nonzero((fold.parts == part) & (truth == label)))
            if count < FEWEST_PER_CLASS:
                left_out = f" that leaves out '{fold.source}'" if fold.source else ""
                raise DataError(
                    f"split={method}: the {part} split{left_out} holds {count} examples whose label is "
                    f"{str(label).lower()}, and {FEWEST_PER_CLASS} are needed; "
                    f"{_mend(int(np.count_nonzero(truth == label)), len(truth), method, folds)}."
                )


def _mend(of_label: int, n: int, method: str, folds: int) -> str:
    """What helps where a split holds too few examples of a label, of which there are so many among all n."""
    if of_label < FEWEST_PER_CLASS * len(_PARTS):
        return (
            f"of all {n} examples {of_label} have this label, too few for any split: raise dataset.num_samples, or "
            "take data (or a model, or a rule) with more of them"
        )
    fewer = "" if method == "leave_one_source_out" or folds == 1 else f"lower probe.folds={folds}, "
    others = ", ".join(other for other in METHODS if other != method)
    return f"{fewer}raise dataset.num_samples, change probe.seed, or choose another split ({others})"


def _notes(fold: Fold, talk: IntArray, links: Links, of_subject: str) -> list[str]:
    """What this fold leaks, and what it leaves unused."""
    train, test = fold.parts == TRAIN, fold.parts == TEST
    notes = []
    words = float(links.shared(test, train, kinds=("text",))[test].mean())
    talks = float(np.isin(talk[test], talk[train]).mean())
    about = float(
        links.shared(test, train, kinds=("group", "about", "frame", "negated", "copy"))[test].mean()
    )
    for kind, what, share in (
        ("leaky", "occur word for word in the train split", words),
        ("leaky", "share a conversation with it", talks),
        (
            of_subject,
            "are about what a training example is about, or a near copy of it",
            about if about > words + 0.005 else 0,
        ),
    ):
        if share > 0:
            notes.append(f"{kind}: {share:.0%} of the test examples {what}")
    if fold.source and (unused := int(np.count_nonzero(fold.parts == UNUSED))):
        notes.append(
            f"split: without '{fold.source}', {unused} of {np.count_nonzero(~test)} examples are not used: they share "
            "a conversation, a text or what they are about with it"
        )
    return notes


def _dominating(components: IntArray, is_one: bool) -> list[str]:
    share = float(np.bincount(components).max() / len(components))
    if share < _DOMINATING or is_one:
        return []
    return [f"split: one component holds {share:.0%} of the examples, and is on one side whole"]


def _left(folds: Sequence[Fold]) -> list[str]:
    """What pruning leaves."""
    parts = np.concatenate([fold.parts for fold in folds])
    tested, unused = (int(np.count_nonzero(parts == part)) for part in (TEST, UNUSED))
    of = len(parts) // len(folds)
    return [
        "split: one component holds too many examples to be divided, so that what recurs is left out: "
        f"{unused / len(folds):.0f} of {of} examples{' a fold' if len(folds) > 1 else ''}; {tested} are tested, "
        f"{tested / (tested + unused):.0%} of those that could be"
    ]
