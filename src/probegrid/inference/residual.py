"""The residual stream at chosen layers and tokens, from one forward pass that ends behind the deepest of them.

Layer L is what the first L blocks add up to: what block L (counted from 0) reads, or what the last block
returns. Hooks pick it up where it is computed, on whatever device that is, so that a whole model and a
truncated one, dispatched over devices or not, give the same numbers.

Knows transformers' decoders and token ids.

Notation: B rows, T tokens of the longest, d width of the residual stream, n spans of all rows together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probegrid.errors import ConfigError
from probegrid.inference.linear import fast_linear
from probegrid.inference.packed import Batch, attending, can_be_packed, give_back_attention, packed_batch
from probegrid.models.blocks import decoder_blocks, execution_device
from probegrid.models.border import to_device
from probegrid.models.fusing import fuse

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

Span = tuple[int, int]
"""First token and one past the last; what is read of a span is the mean over its tokens."""

Pick = Callable[[int, Tensor], None]
"""Called with each layer and its hidden states [B, T, d], in the order of the layers."""


class Rows(StrEnum):
    """How the rows of a batch are read together; the value is its name for people."""

    packed = "packed rows"
    padded = "padded batches"
    alone = "one by one"


def ways(model: PreTrainedModel) -> list[Rows]:
    """How rows may be read together, the fastest first."""
    return [*([Rows.packed] if can_be_packed(model) else []), Rows.padded, Rows.alone]


class ResidualReader:
    """Reads some layers of a decoder."""

    def __init__(self, model: PreTrainedModel, layers: Sequence[int], rows: Rows | None = None) -> None:
        """Find the layers.

        Args:
            model: a causal model, or its bare decoder; whole, or truncated behind ``max(layers)`` or later.
            layers: layers to read, each once.
            rows: how the rows of a batch are read together; None: the fastest way that nothing is known against.

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
        fuse(model)
        self._causal = model
        self._rows = rows or ways(model)[0]

    def read(
        self,
        token_ids: Sequence[Sequence[int]],
        spans: Sequence[Sequence[Span]],
        dtype: torch.dtype = torch.bfloat16,
    ) -> dict[int, Tensor]:
        """Run one batch.

        Args:
            token_ids: of each row.
            spans: what to read of each row; spans may overlap.
            dtype: of the result; means are taken in float32.

        Returns:
            For each layer [n, d] on the CPU, row by row and span by span.
        """
        if self._rows is Rows.alone and len(token_ids) > 1:
            each = [self.read([row], [of_row], dtype) for row, of_row in zip(token_ids, spans, strict=True)]
            return {layer: torch.cat([found[layer] for found in each]) for layer in self.layers}
        packed = self._rows is Rows.packed
        batch = packed_batch(self._causal, token_ids) if packed else _padded_batch(self._causal, token_ids)
        picked: dict[int, Tensor] = {}
        lengths = [len(row) for row in token_ids] if packed else None
        selection = _Selection(spans, lengths, dtype, batch.tensors["input_ids"].shape)

        def pick(layer: int, hidden: Tensor) -> None:
            picked[layer] = selection(hidden)
            if layer == self.layers[-1]:
                raise _DeepestLayerRead

        with torch.inference_mode(), fast_linear(self._model), self._tapped(pick), attending(batch.attends):
            try:
                device = execution_device(self._model.get_input_embeddings())
                tensors = {name: to_device(value, device) for name, value in batch.tensors.items()}
                self._model(**tensors, use_cache=False)
            except _DeepestLayerRead:
                pass
        return {layer: values.cpu() for layer, values in picked.items()}

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


def _padded_batch(model: PreTrainedModel, token_ids: Sequence[Sequence[int]]) -> Batch:
    """Rows side by side. Padding is on the right and attention is causal: no token sees it, and no mask is needed."""
    # one that answered before may have been left with an attention for shared prefixes
    give_back_attention(model)
    width = max(map(len, token_ids))
    return Batch({"input_ids": torch.tensor([[*row, *[0] * (width - len(row))] for row in token_ids])})


class _Selection:
    """Picks the spans of a batch out of hidden states, on their own device."""

    def __init__(
        self,
        spans: Sequence[Sequence[Span]],
        packed: Sequence[int] | None,
        dtype: torch.dtype,
        shape: torch.Size,
    ) -> None:
        """Begin.

        Args:
            spans: of each row.
            packed: tokens of each row where all of them are one sequence; None: each row is one.
            dtype: of the result.
            shape: [B, T] of the batch.
        """
        begins = None if packed is None else list(itertools.accumulate(packed, initial=0))
        cells = [
            (row, token) if begins is None else (0, begins[row] + token)
            for row, of_row in enumerate(spans)
            for start, end in of_row
            for token in range(start, end)
        ]
        self._cells = torch.tensor(cells).T
        self._lengths = torch.tensor([end - start for of_row in spans for start, end in of_row])
        self._dtype, self._shape = dtype, shape

    def __call__(self, hidden: Tensor) -> Tensor:
        """From [B, T, d] to [n, d]; several streams a token, side by side or one behind the other, are one wide one."""
        if hidden.dim() == 4:
            hidden = (hidden if hidden.shape[:2] == self._shape else hidden.permute(1, 2, 0, 3)).flatten(2)
        rows, tokens = to_device(self._cells, hidden.device)
        chosen = hidden[rows, tokens]
        if len(self._lengths) < len(rows):
            chosen = torch.segment_reduce(
                chosen.float(), "mean", lengths=self._lengths.to(hidden.device), unsafe=True
            )
        return chosen.to(self._dtype)


class _DeepestLayerRead(Exception):
    """Nothing that is asked for comes later in this forward pass."""


def _hidden_states(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a block returns: the hidden states, or a tuple that begins with them (transformers 4)."""
    return output if isinstance(output, Tensor) else output[0]
