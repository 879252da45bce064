"""Rows that begin alike, as a forest of tokens: what several rows have in common stands in it once.

The token behind a token is its child. In the order of a walk the tokens below one follow it, so that where each one's
tree below it ends says which tokens see which: a token attends to those it is below, and to itself.

Knows token ids and tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from probegrid.models.border import to_device


@dataclass(frozen=True)
class Forest:
    """Some rows as one sequence of tokens; N of them."""

    tokens: Tensor
    """[N] int64: token ids, each behind the one it follows in its rows."""
    depth: Tensor
    """[N] int64: tokens before each in its rows."""
    end: Tensor
    """[N] int64: one past the last of the tokens below each."""
    root: tuple[int, ...]
    """Of each token, the first token of its rows."""
    places: tuple[tuple[int, ...], ...]
    """Of each row, where its tokens are."""
    _moved: dict[torch.device, Forest] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Forest:
        """Plant some rows, at least one, each of at least one token.

        >>> forest = Forest.of([[7, 8, 9], [7, 5], [7, 8]])
        >>> forest.tokens.tolist(), forest.end.tolist(), forest.places
        ([7, 5, 8, 9], [4, 2, 4, 4], ((0, 2, 3), (0, 1), (0, 2)))
        """
        tokens, depth, end, root = list[int](), list[int](), list[int](), list[int]()
        places: list[tuple[int, ...]] = [()] * len(rows)
        path: list[int] = []  # where the tokens of the row before are
        before: Sequence[int] = ()
        for index in sorted(range(len(rows)), key=lambda index: tuple(rows[index])):
            row = rows[index]
            shared = in_common(before, row)
            for place in path[shared:]:
                end[place] = len(tokens)
            path = path[:shared]
            for at in range(shared, len(row)):
                path.append(len(tokens))
                root.append(path[0])
                tokens.append(row[at])
                depth.append(at)
                end.append(0)
            places[index], before = tuple(path), row
        for place in path:
            end[place] = len(tokens)
        return cls(torch.tensor(tokens), torch.tensor(depth), torch.tensor(end), tuple(root), tuple(places))

    def to(self, device: torch.device) -> Forest:
        """This forest with its tensors on ``device``; copied once however many layers ask."""
        if device == self.tokens.device:
            return self
        if device not in self._moved:
            tokens, depth, end = (to_device(each, device) for each in (self.tokens, self.depth, self.end))
            self._moved[device] = replace(self, tokens=tokens, depth=depth, end=end, _moved={})
        return self._moved[device]

    def seen(self, start: int, stop: int, window: int | None) -> tuple[int, Tensor]:
        """Which tokens those from ``start`` to ``stop`` see, none further up than a window reaches.

        Returns:
            The first token b that any of them may see, and [stop - start, stop - b] bool.
        """
        begin = self.root[start]
        one = torch.arange(start, stop, device=self.end.device).unsqueeze(-1)
        other = torch.arange(begin, stop, device=self.end.device)
        visible = (other <= one) & (one < self.end[begin:stop])
        if window is not None:
            visible &= self.depth[start:stop].unsqueeze(-1) - self.depth[begin:stop] < window
        return begin, visible


def in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with alike.

    >>> in_common([1, 2, 3], [1, 2, 4, 5])
    2
    """
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def count(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens the forest of some rows has.

    >>> count([[7, 8, 9], [7, 5], [7, 8]])
    4
    """
    in_order = sorted(map(tuple, rows))
    alike = sum(in_common(one, other) for one, other in itertools.pairwise(in_order))
    return sum(map(len, rows)) - alike


def divided(rows: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Divide rows into forests, those that begin alike together.

    Args:
        rows: token ids of each.
        most: tokens of a forest; a row that is longer is one alone.

    Returns:
        Indices of each forest's rows.

    >>> divided([[7, 8, 9], [4, 5], [7, 8, 6]], 4)
    [[1], [2, 0]]
    """
    forests: list[list[int]] = []
    size, before = 0, tuple[int, ...]()
    for index in sorted(range(len(rows)), key=lambda index: (tuple(rows[index]), index)):
        row = tuple(rows[index])
        more = len(row) - in_common(before, row)
        if forests and size + more <= most:
            forests[-1].append(index)
            size += more
        else:
            forests.append([index])
            size = len(row)
        before = row
    return forests
