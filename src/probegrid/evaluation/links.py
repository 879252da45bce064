"""What joins examples so that they belong on one side of a split, and how much of it a data set can bear.

Knows conversations, texts, groups and what statements are about (`subjects`) as names; examples that share a name are
linked. Where links join nearly everything, the weakest kinds are given up, one after another, and said.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from probegrid.evaluation.checks import BoolArray, IntArray
from probegrid.evaluation.subjects import Key, normalized, subject_keys

_LEVELS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"conversation", "group", "text", "negated", "copy", "about", "frame"}), ""),
    (
        frozenset({"conversation", "group", "text", "negated", "copy"}),
        "what statements are about joins too many of them to be divided and is not kept apart",
    ),
    (
        frozenset({"conversation", "group", "text"}),
        "negations and near copies join too many statements to be divided and are not kept apart",
    ),
)
"""Kinds of links, the strictest first, and what is said of those that follow."""
_LARGEST = 0.5  # share of the examples in one component that can still be divided
_LARGEST_OF_TEXTS = 0.8  # likewise where nothing is left to give up: train takes more than its share then
_FEWEST = 3  # components that can be divided


@dataclass(frozen=True)
class Links:
    """Links of n examples.

    Attributes:
        names: by kind, the example and the name of each link: `intp[2, links]`.
        n: number of examples.
        kinds: those that count.
        given_up: what is said of those that do not.
        is_one: whether even the least links leave no components to divide.
    """

    names: dict[str, IntArray]
    n: int
    kinds: frozenset[str]
    given_up: tuple[str, ...]
    is_one: bool

    @classmethod
    def of(
        cls,
        conversations: Sequence[str],
        texts: Sequence[str],
        sources: Sequence[str],
        groups: Sequence[str],
        *,
        by_subject: bool,
    ) -> Links:
        """Find all links and the strictest kinds under which the examples can be divided; columns of n names each."""
        keys: list[set[Key]] = (
            subject_keys(texts, sources) if by_subject else [{("text", normalized(text))} for text in texts]
        )
        for found, conversation, group in zip(keys, conversations, groups, strict=True):
            found.add(("conversation", conversation))
            if group:
                found.add(("group", group))
        names = _numbered(keys)
        for number, (kinds, said) in enumerate(_LEVELS):
            is_last = number == len(_LEVELS) - 1
            links = cls(names, len(texts), kinds, (f"split: {said}",) if said else (), is_one=False)
            if not len(texts) or links._is_divisible(_LARGEST_OF_TEXTS if is_last else _LARGEST):
                return links
            if is_last:
                return cls(names, len(texts), kinds, (), is_one=True)
        raise AssertionError("a level is returned")

    def strictest(self) -> Links:
        """The same with every kind of link."""
        links = replace(self, kinds=_LEVELS[0][0], given_up=())
        return replace(links, is_one=not links._is_divisible())

    def _is_divisible(self, largest: float = _LARGEST) -> bool:
        sizes = np.bincount(self.components())
        return len(sizes) >= _FEWEST and int(sizes.max()) <= largest * self.n

    def components(self, among: BoolArray | None = None) -> IntArray:
        """Connected component of each example (of ``among``) by the kinds that count: `intp`, from 0."""
        columns = []
        chosen = np.ones(self.n, dtype=bool) if among is None else among
        place = np.cumsum(chosen) - 1
        for kind in sorted(self.kinds & self.names.keys()):
            examples, names = self.names[kind]
            kept = chosen[examples]
            columns.append((place[examples[kept]], names[kept]))
        return _components(columns, int(chosen.sum()))

    def shared(self, among: BoolArray, others: BoolArray, kinds: Collection[str] | None = None) -> BoolArray:
        """Which examples of ``among`` share a name with any of ``others``: `bool[n]`, by the kinds that count.

        Args:
            among: `bool[n]`.
            others: `bool[n]`.
            kinds: kinds in place of those that count.
        """
        found = np.zeros(self.n, dtype=bool)
        for kind in self.names.keys() & (self.kinds if kinds is None else set(kinds)):
            examples, names = self.names[kind]
            held = np.unique(names[others[examples]])
            found[examples[np.isin(names, held)]] = True
        shared: BoolArray = found & among
        return shared


def joined(columns: Sequence[IntArray]) -> IntArray:
    """Connected component of each of n examples that have a code in each column: `intp[n]`."""
    n = len(columns[0])
    return _components([(np.arange(n), codes) for codes in columns], n)


def _numbered(keys: Sequence[set[Key]]) -> dict[str, IntArray]:
    """Links by kind, names numbered."""
    numbers: dict[Key, int] = {}
    found: dict[str, list[tuple[int, int]]] = {}
    for example, held in enumerate(keys):
        for key in held:
            found.setdefault(key[0], []).append((example, numbers.setdefault(key, len(numbers))))
    return {kind: np.array(links, dtype=np.intp).T for kind, links in found.items()}


def _components(columns: Sequence[tuple[IntArray, IntArray]], n: int) -> IntArray:
    """Connected component of n examples in the graph that joins each with its names; numbered by first occurrence."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not n:
        return np.zeros(0, dtype=np.intp)
    examples = np.concatenate([column[0] for column in columns])
    offset, nodes = n, []
    for _, names in columns:
        nodes.append(names + offset)
        offset += int(names.max()) + 1 if len(names) else 0
    graph = coo_array((np.ones(len(examples)), (examples, np.concatenate(nodes))), shape=(offset, offset))
    return np.unique(connected_components(graph, directed=False)[1][:n], return_inverse=True)[1]
