"""The prefix that rows share and the rows of a batch: their keys and values, and what their next step attends to.

Knows caches, layouts and recorded steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probegrid.inference.attention import Pair, RowCache
from probegrid.inference.graphs import StepGraph
from probegrid.inference.layout import Growth

if TYPE_CHECKING:
    from probegrid.inference.graphs import Recordable

_QUERIES = 64
"""Heads of a group, of all rows of a run together, that attend to a question's keys at once."""


@dataclass
class Prefix:
    """What all rows begin with: one for all groups of rows, the first of which reads it."""

    tokens: Sequence[int]
    length: int = 0
    """Tokens that were read."""
    pairs: dict[int, Pair] = field(default_factory=dict)
    """Keys and values [tokens, K, d] of each call of attention."""
    ran_out: bool = False
    """Whether a pass that began with the prefix did not end: the prefix is read alone then."""

    @property
    def unread(self) -> Sequence[int]:
        """What no pass has read yet: a pass of its own is too short to keep a GPU busy."""
        return self.tokens[self.length :]

    def forget(self) -> None:
        """Drop what was read, and what a pass that did not end left."""
        self.pairs, self.length = {}, 0

    def as_if_read(self) -> Prefix:
        """The same as later passes find it."""
        return replace(self, length=len(self.tokens))


class Rows:
    """The rows of a batch: the question that each answers, and the keys and values of questions and of answers."""

    def __init__(self) -> None:
        self.questions: dict[int, RowCache] = {}
        self._own: dict[int, RowCache] = {}
        self._lengths: list[int] = []
        self._question_of: list[int] = []
        self._room = 0
        self._most_heads = 1
        """Of a group, over all layers."""
        self._growth: Growth | None = None
        self._graph: StepGraph | None = None
        """A recorded step on the caches as they are."""

    def begin(self, lengths: list[int], room: int) -> None:
        """Start rows, each with a question of its own; caches that are large enough are used again."""
        slots = max(lengths)
        if any(cache.shape[0] != len(lengths) or cache.shape[1] < slots for cache in self.questions.values()):
            self.questions = {}
        if room != self._room:  # a recorded step would go on with the caches that are given up here
            self._own, self._graph = {}, None
        self._lengths, self._question_of, self._room = lengths, list(range(len(lengths))), room
        self._growth = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, the most of a run, and what each may grow by."""
        return self.growth().n_rows, self.growth().longest_run, self._room

    def of_questions(self, layer: int, query: Tensor, like: Tensor) -> RowCache:
        """The questions' cache of a layer, for queries [N, H, d] and keys and values [N, K, d]."""
        self._most_heads = max(self._most_heads, query.shape[1] // like.shape[1])
        if layer not in self.questions:
            self._graph = None
            self.questions[layer] = RowCache(len(self._lengths), max(self._lengths), like)
        return self.questions[layer]

    def own(self, layer: int, like: Tensor) -> RowCache:
        """The answers' cache of a layer."""
        if layer not in self._own or self._own[layer].shape[0] != len(self._question_of):
            self._graph = None
            self._own[layer] = RowCache(len(self._question_of), self._room, like)
        return self._own[layer]

    def growth(self) -> Growth:
        """What the next step attends to."""
        if self._growth is None:
            self._growth = self._laid_out(grown=0)
        return self._growth

    def _laid_out(self, grown: int) -> Growth:
        slots = next((cache.shape[1] for cache in self.questions.values()), max(self._lengths))
        run = max(1, _QUERIES // self._most_heads)
        return Growth(self._question_of, self._lengths, slots, grown, longest_run=run)

    def have_stepped(self) -> None:
        """Note that the rows, as they are, took a step."""
        self.growth().advance()

    def recorded(
        self,
        decoder: Recordable,
        tokens: Tensor,
        draws: Tensor | None,
        temperature: float,
        *,
        is_loaded: bool,
    ) -> StepGraph | None:
        """See ``SharedPrefixDecoder.recorded``."""
        growth = self.growth()
        if self._graph is not None and self._graph.serves(growth, draws, temperature):
            self._growth = self._graph.go_on_with(growth, tokens, draws)
        elif is_loaded:
            for layer, cache in self.questions.items():  # what is made while it records is made at each step
                self.own(layer, cache.keys[0])
            self._graph = None
            self._graph = StepGraph(decoder, growth, tokens, draws, temperature)
        else:
            return None
        return self._graph

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        self._question_of = [self._question_of[row] for row in rows]
        if self._growth is not None and self._growth.grown:
            self._graph = None
            chosen = torch.tensor(rows)
            for cache in self._own.values():
                cache.select(chosen)
            self._growth = self._laid_out(self._growth.grown)
        else:
            self._growth = None
