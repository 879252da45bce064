"""The residual stream at chosen layers and tokens, from one forward pass that ends behind the deepest of them.

Layer L is what the first L blocks add up to: what block L (counted from 0) reads, or what the last block
returns. Hooks pick it up where it is computed, on whatever device that is, so that a whole model and a
truncated one, dispatched over devices or not, give the same numbers.

Knows transformers' decoders and token ids.

Notation: B rows, T tokens of the longest, d width of the residual stream, n spans of all rows together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from probegrid.errors import ConfigError
from probegrid.inference.attention import Pair, Softmax, attend_forest, attend_prefix
from probegrid.inference.both_ways import token_types
from probegrid.inference.forest import Forest, count, in_common
from probegrid.inference.linear import fast_linear
from probegrid.inference.mixers import mixers
from probegrid.inference.packed import (
    Batch,
    attending,
    can_be_packed,
    give_back_attention,
    obstacle,
    packed_batch,
    take_attention,
)
from probegrid.models.blocks import decoder_blocks, execution_device
from probegrid.models.border import to_device

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

Span = tuple[int, int]
"""First token and one past the last; what is read of a span is the mean over its tokens."""

Pick = Callable[[int, Tensor], None]
"""Called with each layer and its hidden states [B, T, d], in the order of the layers."""

Place = Callable[[int, int], tuple[int, int]]
"""From a row and a token of it to where it is in a batch [B, T]."""


class Row(NamedTuple):
    """What is read of one sequence."""

    token_ids: Sequence[int]
    spans: Sequence[Span]
    prompt: int | None = None
    """Tokens of its prompt, which a few models read otherwise than what follows (`both_ways`); None: it is all one."""


class Rows(StrEnum):
    """How the rows of a batch are read together; the value is its name for people."""

    shared = "shared prefix"
    packed = "packed rows"
    padded = "padded batches"
    alone = "one by one"


_FEWEST_SAVED = 0.5
"""Part of the tokens that sharing is to save: trying it takes some itself."""


def ways(model: PreTrainedModel, passages: Sequence[Row] = ()) -> list[Rows]:
    """How rows may be read together, the fastest first.

    Args:
        model: as it is used.
        passages: all that is to be read; where most of it is the same tokens over and over, each is read once.
    """
    found = [*([Rows.packed] if can_be_packed(model) else []), Rows.padded, Rows.alone]
    rows = [passage.token_ids for passage in passages]
    # a layer that carries a state would have to be given that of the token above
    if not rows or obstacle(model) is not None or mixers(model):
        return found
    ahead = len(prefix_of(passages))
    needed = ahead + count([row[ahead:] for row in rows])
    return [Rows.shared, *found] if needed <= (1 - _FEWEST_SAVED) * sum(map(len, rows)) else found


def prefix_of(passages: Sequence[Row]) -> list[int]:
    """The tokens that all passages begin with, as far as nothing is read of them."""
    rows = [tuple(passage.token_ids) for passage in passages]
    # what all have in common is what the two extremes in the order of tokens have
    first, last = min(rows), max(rows)
    unread = min((start for passage in passages for start, _ in passage.spans), default=0)
    return list(first[: min(in_common(first, last), len(first) - 1, unread)])


class ResidualReader:
    """Reads some layers of a decoder."""

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Sequence[int],
        rows: Rows | None = None,
        prefix: Sequence[int] = (),
        pass_tokens: int = 1024,
    ) -> None:
        """Find the layers.

        Args:
            model: a causal model, or its bare decoder; whole, or truncated behind ``max(layers)`` or later.
            layers: layers to read, each once.
            rows: how the rows of a batch are read together; None: the fastest way that nothing is known against.
            prefix: where prefixes are shared, what all rows of all batches begin with, none of which is read of any
                (`prefix_of`): its keys and values are computed with the first batch, and held.
            pass_tokens: of a prefix that are computed at once.

        Raises:
            ConfigError: the model has fewer blocks.
            CheckpointError: its blocks cannot be found.
        """
        self.layers = tuple(sorted(layers))
        self._model: Any = model.base_model  # without the head
        self._blocks = decoder_blocks(model)
        if not 0 <= self.layers[0] <= self.layers[-1] <= len(self._blocks):
            raise ConfigError(
                f"probe.layers={list(self.layers)}: the model has {len(self._blocks)} blocks, so that its layers are "
                f"0 (the embeddings) to {len(self._blocks)}."
            )
        self._causal = model
        self._rows = rows or ways(model)[0]
        self._prefix, self._pass_tokens = list(prefix), pass_tokens
        self._shared: _SharedPrefix | None = None

    def read(
        self,
        token_ids: Sequence[Sequence[int]],
        spans: Sequence[Sequence[Span]],
        dtype: torch.dtype = torch.bfloat16,
        prompts: Sequence[int | None] | None = None,
    ) -> dict[int, Tensor]:
        """Run one batch.

        Args:
            token_ids: of each row.
            spans: what to read of each row; spans may overlap.
            dtype: of the result; means are taken in float32.
            prompts: tokens of each row's prompt, as of `Row`.

        Returns:
            For each layer [n, d] on the CPU, row by row and span by span.
        """
        prompts = prompts or [None] * len(token_ids)
        if self._rows is Rows.alone and len(token_ids) > 1:
            each = [
                self.read([row], [of_row], dtype, [prompt])
                for row, of_row, prompt in zip(token_ids, spans, prompts, strict=True)
            ]
            return {layer: torch.cat([found[layer] for found in each]) for layer in self.layers}
        batch, place = self._batch(token_ids, prompts)
        picked: dict[int, Tensor] = {}
        selection = _Selection(spans, place, dtype, batch.tensors["input_ids"].shape)

        def pick(layer: int, hidden: Tensor) -> None:
            picked[layer] = selection(hidden)

        self._run(batch, pick)
        return _on_cpu(picked)

    def _batch(
        self, token_ids: Sequence[Sequence[int]], prompts: Sequence[int | None]
    ) -> tuple[Batch, Place]:
        """What the model is called with, and where a row's token is in it."""
        if self._rows is Rows.shared:
            take_attention(self._causal)
            if self._shared is None:
                self._shared = self._read_prefix()
            ahead = len(self._prefix)
            forest = Forest.of([row[ahead:] for row in token_ids])
            self._shared.begin(forest)
            tensors = {"input_ids": forest.tokens, "position_ids": ahead + forest.depth}
            batch = Batch({name: value.unsqueeze(0) for name, value in tensors.items()}, self._shared)
            return batch, lambda row, token: (0, forest.places[row][token - ahead])
        if self._rows is Rows.packed:
            begins = list(itertools.accumulate(map(len, token_ids), initial=0))
            return packed_batch(self._causal, token_ids), lambda row, token: (0, begins[row] + token)
        return _padded_batch(self._causal, token_ids, prompts), lambda row, token: (row, token)

    def _read_prefix(self) -> _SharedPrefix:
        shared = _SharedPrefix()
        for start in range(0, len(self._prefix), self._pass_tokens):
            chunk = torch.tensor([self._prefix[start : start + self._pass_tokens]])
            shared.begin(None)
            positions = torch.arange(start, start + chunk.shape[1]).unsqueeze(0)
            self._run(Batch({"input_ids": chunk, "position_ids": positions}, shared), lambda *_: None)
        return shared

    def _run(self, batch: Batch, pick: Pick) -> None:
        """One pass as far as the deepest layer."""

        def pick_until(layer: int, hidden: Tensor) -> None:
            pick(layer, hidden)
            if layer == self.layers[-1]:
                raise _DeepestLayerRead

        with (
            torch.inference_mode(),
            fast_linear(self._model),
            self._tapped(pick_until),
            attending(batch.attends),
            suppress(_DeepestLayerRead),
        ):
            device = execution_device(self._model.get_input_embeddings())
            tensors = {name: to_device(value, device) for name, value in batch.tensors.items()}
            self._model(**tensors, use_cache=False)

    @contextmanager
    def _tapped(self, pick: Pick) -> Iterator[None]:
        """Hook every layer, and leave no hook behind."""
        handles = [self._tap(layer, pick) for layer in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _tap(self, layer: int, pick: Pick) -> RemovableHandle:
        if layer > 0:
            return self._blocks[layer - 1].register_forward_hook(
                lambda _module, _args, output: pick(layer, _hidden_states(output))
            )
        # With no block at all the embeddings go straight to what stands for the final norm.
        reader: nn.Module = self._blocks[0] if len(self._blocks) else self._model.norm
        return reader.register_forward_pre_hook(
            lambda _module, args, kwargs: pick(layer, args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )


def _on_cpu(values: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The values of each layer, waited for once.

    A GPU copies to memory that may be paged out at a tenth of its link's speed; what is locked is kept by torch, and
    used again for the next batch.
    """
    found = {
        layer: torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
        if value.is_cuda
        else value
        for layer, value in values.items()
    }
    for device in {value.device for value in values.values() if value.is_cuda}:
        torch.cuda.current_stream(device).synchronize()
    return found


def _padded_batch(
    model: PreTrainedModel, token_ids: Sequence[Sequence[int]], prompts: Sequence[int | None]
) -> Batch:
    """Rows side by side. Padding is on the right and attention is causal: no token sees it, and no mask is needed.

    Of a model that reads prompts both ways padding is none of the prompt.
    """
    # one that answered before may have been left with an attention for shared prefixes
    give_back_attention(model)
    width = max(map(len, token_ids))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in token_ids])
    read_both_ways = [
        len(row) if prompt is None else prompt for row, prompt in zip(token_ids, prompts, strict=True)
    ]
    return Batch({"input_ids": ids, **token_types(model, read_both_ways, width)})


class _SharedPrefix:
    """Answers for the attention of passes over a prefix, whose keys and values it holds, and over rows behind it."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None
        self.storing = False
        self._pairs: dict[int, Pair] = {}
        """Of each call of a pass."""
        self._forest: Forest | None = None
        self._longest = 0
        """Tokens of the longest row behind the prefix."""
        self._call = -1

    def begin(self, forest: Forest | None) -> None:
        """A pass over a forest of rows; None: over the next tokens of the prefix."""
        self._forest, self._call = forest, -1
        self._longest = 0 if forest is None else 1 + int(forest.depth.max())

    def attend(self, query: Tensor, key: Tensor, value: Tensor, how: Softmax) -> Tensor:
        """As ``Attends``."""
        self._call += 1
        own, before = (key, value), self._pairs.get(self._call)
        if self._forest is None:
            longer = own if before is None else (torch.cat([before[0], key]), torch.cat([before[1], value]))
            self._pairs[self._call] = longer
            return attend_prefix(query, own, before, how)
        is_plain = how.is_plain(self._longest + (0 if before is None else len(before[0])))
        return attend_forest(query, own, self._forest.to(query.device), before, how, is_plain=is_plain)


class _Selection:
    """Picks the spans of a batch out of hidden states, on their own device."""

    def __init__(
        self, spans: Sequence[Sequence[Span]], place: Place, dtype: torch.dtype, shape: torch.Size
    ) -> None:
        """Begin.

        Args:
            spans: of each row.
            place: where a row's token is in the batch.
            dtype: of the result.
            shape: [B, T] of the batch.
        """
        cells = [
            place(row, token)
            for row, of_row in enumerate(spans)
            for start, end in of_row
            for token in range(start, end)
        ]
        lengths = [end - start for of_row in spans for start, end in of_row]
        self._cells, self._lengths = torch.tensor(cells).T.contiguous(), torch.tensor(lengths)
        self._moved: dict[torch.device, tuple[Tensor, Tensor]] = {}
        """Cells and lengths on each device that asked, whatever the number of its layers."""
        self._dtype, self._shape = dtype, shape

    def __call__(self, hidden: Tensor) -> Tensor:
        """From [B, T, d] to [n, d]; several streams a token, side by side or one behind the other, are one wide one."""
        if hidden.dim() == 4:
            hidden = (hidden if hidden.shape[:2] == self._shape else hidden.permute(1, 2, 0, 3)).flatten(2)
        (rows, tokens), lengths = self._on(hidden.device)
        chosen = hidden[rows, tokens]
        if len(lengths) < len(rows):
            chosen = torch.segment_reduce(chosen.float(), "mean", lengths=lengths, unsafe=True)
        return chosen.to(self._dtype)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._moved:
            self._moved[device] = to_device(self._cells, device), to_device(self._lengths, device)
        return self._moved[device]


class _DeepestLayerRead(Exception):
    """Nothing that is asked for comes later in this forward pass."""


def _hidden_states(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a block returns: the hidden states, or a tuple that begins with them (transformers 4)."""
    return output if isinstance(output, Tensor) else output[0]
