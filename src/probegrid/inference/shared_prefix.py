"""A decoder whose rows share a prefix: its keys and values are computed once and held once, whatever the batch.

The tokens of all rows are packed into one sequence, so that no arithmetic is spent on padding. The answers to a
question share the question's keys and values too. Attention is over up to three parts (``attention.py``), registered
through transformers' ``AttentionInterface``; layers that carry states instead are in ``mixers.py``; the model's own
code does all the rest. Calls of attention are told apart by their order in a pass: a block may attend more than once.

Knows a transformers causal language model and token ids.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from probegrid.inference.attention import (
    Pair,
    Softmax,
    attend_ends,
    attend_prefix,
    attend_rows,
    attend_step,
)
from probegrid.inference.direct import compute_directly
from probegrid.inference.graphs import StepGraph, can_be_recorded
from probegrid.inference.last_block import KeysAreKept, spare_last_block
from probegrid.inference.layout import Growth, Layout
from probegrid.inference.linear import fast_linear
from probegrid.inference.mixers import MixerStates, Run, mixers, wrap
from probegrid.inference.packed import attending, obstacle, packed, take_attention, who_attends
from probegrid.inference.rows import Prefix, Rows
from probegrid.inference.token_steps import Watcher
from probegrid.inference.wavefront import abreast
from probegrid.models.border import cross, to_device
from probegrid.models.dispatch import placement_of
from probegrid.models.load import embedding_device
from probegrid.planning.workload import pass_tokens

__all__ = ["SharedPrefixDecoder", "obstacle"]

_Group = tuple[int, Sequence[Sequence[int]]]
"""Rows that one pass reads, behind the index of the first."""


class SharedPrefixDecoder:
    """Prefill and step a batch of rows that begin with the same tokens.

    Rows are started by ``prefill``, advanced by ``step``, copied and dropped by ``keep``. One decoder serves many
    batches: ``reset`` forgets the rows and keeps the prefix.
    """

    def __init__(
        self, model: PreTrainedModel, prefix: Sequence[int], *, chunk_tokens: int, lanes: int | None = None
    ) -> None:
        """Compute the prefix, ``chunk_tokens`` at a time; one that leaves room in a pass is read with the first rows.

        Args:
            model: a causal language model for which `packed.obstacle` is None.
            prefix: token ids that every row begins with; may be empty.
            chunk_tokens: most tokens in one forward pass, which bounds the memory of activations.
            lanes: groups of rows that take their steps in turn; None: as many as the placement has, so that each
                device works for one while the others work for the rest.
        """
        placement = placement_of(model)
        self.n_stages = placement.stages if placement else 1
        self.n_lanes = lanes or (placement.lanes if placement else 1)
        self._forks: list[SharedPrefixDecoder] = []
        self.model = model
        self.chunk_tokens = chunk_tokens
        self.prefix = Prefix(list(prefix))
        self.watcher: Watcher | None = None
        """Is shown the attention of every step."""
        self._rows = Rows()
        self._now: Layout | Growth | None = None
        self.kept: Tensor | None = None
        self.storing = self._stored = False
        self._ends: Layout | None = None
        """Of the last tokens of a pass's rows."""
        self._call = -1
        self._longest = 0
        """Tokens of the longest row, its prefix and all that it may grow by."""
        found = mixers(model)
        self.n_abreast = placement.abreast if placement and not found else 1
        if found and placement and placement.abreast > 1:
            self.n_lanes = 1  # one behind the other, each would copy every block again
        self._states = MixerStates(model) if found else None
        self.can_be_recorded = (
            can_be_recorded(model) and not found
        )  # states do not lie in the same tensors twice
        self._loaded: set[tuple[int, ...]] = set()
        """Steps whose kernels are loaded, by what they hang on; all groups of a batch know them together."""
        self._masked = False
        """Whether the rows need more of some layer's softmax than its scale."""
        take_attention(model)
        compute_directly(model)
        for module in found:
            wrap(module, who_attends)
        self._spares = spare_last_block(model)
        if found or 2 * len(prefix) > chunk_tokens:
            self._read_prefix()

    def _read_prefix(self) -> None:
        """Read the prefix, and no row."""
        self._now, prefix = None, self.prefix
        while chunk := prefix.unread[: self.chunk_tokens]:
            positions = torch.arange(prefix.length, prefix.length + len(chunk))
            self._read(packed([chunk]), positions, torch.tensor([len(chunk) - 1]))
            prefix.length += len(chunk)

    def lanes(self, rows: int) -> list[SharedPrefixDecoder]:
        """Decoders of the same model and prefix, for the groups of so many rows: this one first."""
        while len(self._forks) < min(self.n_lanes, rows) - 1:
            other = copy.copy(self)
            other._rows, other._now, other._forks = Rows(), None, []
            other._states = self._states and self._states.fork()
            self._forks.append(other)
        return [self, *self._forks][: min(self.n_lanes, rows)]

    def advance(self, lanes: Sequence[Callable[[], None]]) -> None:
        """Let lanes take a step each."""
        if self.n_abreast > 1:
            abreast(self.model, lanes)
            return
        for lane in lanes:
            lane()

    @property
    def prefix_bytes(self) -> int:
        """Bytes that the keys and values of the prefix take, on all devices together."""
        return sum(part.nbytes for pair in self.prefix.pairs.values() for part in pair)

    def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Replace all rows by new ones and read their own tokens, those that follow the prefix.

        Args:
            suffixes: token ids of each row after the prefix, at least one a row.
            room: tokens that each row may still grow by.

        Returns:
            Logits [rows, vocabulary] of the token after each row, in the model's dtype.
        """
        if self.prefix.ran_out:
            self.prefix.forget()
            self._read_prefix()
        unread = self.prefix.unread
        self._rows.begin([len(suffix) for suffix in suffixes], room)
        self._longest = self.prefix.length + len(unread) + max(map(len, suffixes)) + room
        self.prefix.ran_out, self._masked = bool(unread), False
        if self._states is not None:
            self._states.forget_rows()
        logits: list[Tensor] = []
        done: deque[torch.cuda.Event] = deque()
        ahead, counts = len(unread), [len(suffix) for suffix in suffixes]
        most = pass_tokens(
            ahead + sum(counts),
            self.chunk_tokens,
            stages=self.n_stages,
            abreast=self.n_abreast,
            longest=max(counts),
        )
        groups = _chunks(suffixes, most, ahead)
        for start in range(0, len(groups), self.n_abreast):
            if len(done) > 2 * self.n_stages:  # what crosses to another device is held until it is there
                done.popleft().synchronize()
            logits += self._read_groups(groups[start : start + self.n_abreast])
            if self.n_stages > 1 and logits[-1].is_cuda:
                done.append(torch.cuda.current_stream(logits[-1].device).record_event())
        return torch.cat(logits)

    def _read_groups(self, groups: Sequence[_Group]) -> list[Tensor]:
        """Logits behind each row of some groups, a pass each, side by side; the first begins with what is unread."""
        readers = [self, *(self._beside() for _ in groups[1:])]
        passes = [reader._reading(*group) for reader, group in zip(readers, groups, strict=True)]
        logits = abreast(self.model, passes)
        self.prefix.length, self.prefix.ran_out = len(self.prefix.tokens), False
        return logits

    def _beside(self) -> SharedPrefixDecoder:
        """Who reads other rows of the same batch behind the same prefix, all of which is read by then."""
        other = copy.copy(self)
        other.prefix = self.prefix.as_if_read()
        return other

    def _reading(self, first: int, group: Sequence[Sequence[int]]) -> Callable[[], Tensor]:
        """The pass that reads a group of rows, from row ``first``."""
        unread, counts = self.prefix.unread, [len(row) for row in group]
        ahead = len(unread)
        layout = self._now = Layout.of(counts, [0] * len(group), first)
        positions = torch.cat([torch.arange(ahead), self.prefix.length + ahead + layout.slot])
        ends = ahead + layout.row_starts[1:].long() - 1
        self._ends = Layout.of([1] * len(group), [count - 1 for count in counts], first)
        return partial(self._read, packed([unread, *group]), positions, ends)

    def step(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Append one token to every row and return the logits [rows, vocabulary] of the next."""
        growth = self._rows.growth()
        ids = tokens if isinstance(tokens, Tensor) else torch.tensor(tokens)
        if ids.device != (device := embedding_device(self.model)):
            (ids,) = cross([ids], device)
        logits = self.forward_step(ids, growth)
        self._rows.have_stepped()
        self._loaded.add(self._step)
        return logits

    @property
    def _step(self) -> tuple[int, ...]:
        """What the kernels of the next step hang on."""
        return *self._rows.shape, self._masked

    def forward_step(self, tokens: Tensor, growth: Growth) -> Tensor:
        """The forward pass of ``step`` alone: tokens [rows] on the embedding's device; nothing advances."""
        self._now, self.kept = growth, None
        at = growth.on(tokens.device)
        positions = self.prefix.length + at.question_lengths[at.run] + at.slot
        return self._forward(tokens.unsqueeze(0), positions.unsqueeze(0), logits_to_keep=0)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row named several times is copied, but for its question's tokens."""
        self._rows.keep(rows)
        if self._states is not None:
            self._states.keep(rows)

    def recorded(self, tokens: Tensor, draws: Tensor | None, temperature: float) -> StepGraph | None:
        """The next step as a graph, see ``graphs``: the last batch's if it serves, else a new one after a first step.

        Args:
            tokens: [rows], the newest of each row.
            draws: [rows, most], see `choosing.choose`.
            temperature: of the drawn rows.

        Returns:
            None where a step cannot be recorded, or not yet.
        """
        if not self.can_be_recorded:
            return None
        try:
            is_loaded = self._step in self._loaded
            return self._rows.recorded(self, tokens, draws, temperature, is_loaded=is_loaded)
        except torch.OutOfMemoryError:  # a graph holds its working memory beside that of passes
            return None
        except RuntimeError:  # some families ask the device what to do next (mixtures of experts)
            self.can_be_recorded = False
            return None

    def reset(self) -> None:
        """Forget all rows, free their memory, keep the prefix."""
        self._rows = Rows()
        self._now = None
        self._forks.clear()
        if self._states is not None:
            self._states.forget_rows()

    def _read(self, tokens: Tensor, positions: Tensor, last: Tensor) -> Tensor:
        """Logits [n, vocabulary] at n of the packed tokens [N], all of them on the CPU."""
        device = embedding_device(self.model)
        ids, where = to_device(tokens, device), to_device(positions, device)
        self.kept = last if self._spares else None
        kept = 0 if self._spares else to_device(last, device)
        return self._forward(ids.unsqueeze(0), where.unsqueeze(0), logits_to_keep=kept)

    def _forward(self, input_ids: Tensor, position_ids: Tensor, logits_to_keep: int | Tensor) -> Tensor:
        self._call, self.storing, self._stored = -1, False, False
        with torch.inference_mode(), fast_linear(self.model), attending(self):
            output = self.model(
                input_ids=input_ids,
                position_ids=position_ids,
                use_cache=False,
                logits_to_keep=logits_to_keep,
            )
        logits: Tensor = output.logits
        return logits[0]

    def mix(self, layer: int, run: Run, hidden: Tensor) -> Tensor:
        """What a layer that carries states makes of a pass's tokens [1, N, d]; called from inside the model."""
        assert self._states is not None
        if self._now is None:
            return self._states.read_prefix(layer, run, hidden)
        if isinstance(self._now, Growth):
            return self._states.step(layer, run, hidden)
        return self._states.read(layer, run, hidden, self._now)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: Softmax) -> Tensor:
        """Attention of one layer for the tokens of this forward pass; called from inside the model.

        Args:
            query: [N, H, d].
            key, value: [N, K, d] of the same tokens; stored here.
            how: of the layer.

        Returns:
            [N, H, d].
        """
        self._call += 1
        layer, own, now = self._call, (key, value), self._now
        is_plain = how.is_plain(self._longest)
        self._masked |= not is_plain
        if self.watcher is not None:
            self.watcher.note(layer, is_plain=is_plain)
        if isinstance(now, Growth):
            caches = self._rows.questions[layer], self._rows.own(layer, key)
            before = self.prefix.pairs.get(layer)
            attended = attend_step(query, own, now, *caches, before, how, is_plain=is_plain)
            if self.watcher is not None:
                self.watcher.see(layer, query, key, now, *caches, before, how)
            return attended
        if self.storing:
            self._store(layer, query, own)
            self._call, self.storing, self._stored = layer - 1, False, True
            raise KeysAreKept
        if self._stored:
            if now is None or self._ends is None:
                return query  # of the prefix alone: nobody looks at what comes of it
            ends, cache = self._ends.to(query.device), self._rows.questions[layer]
            return attend_ends(query, ends, cache, self.prefix.pairs.get(layer), how, is_plain=is_plain)
        ahead = self._tokens_ahead(query)
        prefix, rows = self.prefix.pairs.get(layer), (key[ahead:], value[ahead:])
        parts = []
        if ahead:
            parts.append(attend_prefix(query[:ahead], (key[:ahead], value[:ahead]), prefix, how))
            prefix = self._hold_prefix(layer, own, ahead)
        if now is not None:
            layout, cache = now.to(query.device), self._rows.of_questions(layer, query, key)
            parts.append(attend_rows(query[ahead:], rows, layout, cache, prefix, how, is_plain=is_plain))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _tokens_ahead(self, query: Tensor) -> int:
        """Tokens of the prefix, which come first in a pass."""
        return len(query) if self._now is None else len(self.prefix.unread)

    def _hold_prefix(self, layer: int, own: Pair, ahead: int) -> Pair:
        """Add the first tokens' keys and values to the prefix's."""
        before = self.prefix.pairs.get(layer) or tuple(part[:0] for part in own)
        keys, values = (torch.cat([old, new[:ahead]]) for old, new in zip(before, own, strict=True))
        self.prefix.pairs[layer] = keys, values
        return keys, values

    def _store(self, layer: int, query: Tensor, own: Pair) -> None:
        """Hold the keys and values of a pass's tokens, queries [N, H, d] beside them."""
        ahead = self._tokens_ahead(query)
        if ahead:
            self._hold_prefix(layer, own, ahead)
        if isinstance(self._now, Layout):
            cache = self._rows.of_questions(layer, query, own[0])
            cache.append(own[0][ahead:], own[1][ahead:], self._now.to(query.device))


def _chunks(rows: Sequence[Sequence[int]], most: int, ahead: int = 0) -> list[_Group]:
    """Cut rows into groups of at most ``most`` tokens, a longer row alone: (index of the first row, rows).

    The first group has ``ahead`` tokens besides.
    """
    groups: list[_Group] = []
    first, size = 0, ahead
    for index, row in enumerate(rows):
        if index > first and size + len(row) > most:
            groups.append((first, rows[first:index]))
            first, size = index, 0
        size += len(row)
    return [*groups, (first, rows[first:])]
