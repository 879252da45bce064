"""Layers that carry a state from token to token (convolutions, recurrences, linear attention), in packed passes.

Attention is told which tokens are a row; these layers are not. They are called once for the rows of each length, as
batches without padding, and each row goes on from its own state, which began as the prefix's: that is computed once and
held once. Knows transformers' caches of states, and the code of the layers that use them.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from probegrid.inference.layout import Layout
from probegrid.models.border import to_device
from probegrid.models.source import code_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Run = Callable[[Tensor, Any], Tensor]
"""A layer on hidden states [rows, T, d] with a cache that holds the rows' states, which it brings up to date."""

_CALLS = ("update_conv_state", "update_recurrent_state")
"""What the code of such a layer asks of its cache."""
_ATTENDS = "ALL_ATTENTION_FUNCTIONS"
_CACHES = ("cache_params", "past_key_values", "past_key_value")
"""What such layers call the cache that they are given."""
_STATES = ("conv_states", "recurrent_states")
_WRAPPED = "_probegrid_mixes"


def mixers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of a model that carry states and do nothing else between tokens."""
    return [module for module in model.modules() if hasattr(module, "layer_idx") and _is_mixer(module)]


def asks_for_attention(module: nn.Module) -> bool:
    """Whether a module asks transformers' table for the attention function to use."""
    return _ATTENDS in code_of(type(module))  # type: ignore[arg-type]  # a class can be hashed


def _is_mixer(module: nn.Module) -> bool:
    code = code_of(type(module))  # type: ignore[arg-type]  # a class can be hashed
    carries = any(call in code for call in _CALLS) and _ATTENDS not in code
    return carries and _cache_name(type(module)) is not None


def _cache_name(kind: type[nn.Module]) -> str | None:
    names = inspect.signature(kind.forward).parameters
    return next((name for name in _CACHES if name in names), None)


def wrap(module: nn.Module, mixing: Callable[[], Any]) -> None:
    """Let a layer ask who is ``mixing``, if anybody is, how its rows lie: ``mix(layer_idx, run, hidden [1, N, d])``."""
    if getattr(module, _WRAPPED, False):
        return
    setattr(module, _WRAPPED, True)
    cached = _cache_name(type(module))
    assert cached is not None
    first = next(name for name in inspect.signature(type(module).forward).parameters if name != "self")
    module.forward = partial(_forward, module, module.forward, first, cached, mixing)


def _forward(
    module: Any,
    forward: Callable[..., Any],
    first: str,
    cached: str,
    mixing: Callable[[], Any],
    *args: Any,
    **named: Any,
) -> Any:
    mixes = mixing()
    if mixes is None:
        return forward(*args, **named)
    hidden, *others = args or (named.pop(first),)

    def run(rows: Tensor, states: Any) -> Tensor:
        out = forward(rows, *others, **{**named, cached: states})
        return out if isinstance(out, Tensor) else out[0]

    return mixes.mix(module.layer_idx, run, hidden)


class MixerStates:
    """The states of a model's mixers behind a prefix and behind each row."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._cache: Any = DynamicCache(config=model.config)
        self._prefix: dict[int, Any] = dict(enumerate(self._cache.layers))
        self._read: dict[int, list[tuple[list[int], Any]]] = {}
        """Of each layer, rows that were read together, and their states."""

    def fork(self) -> MixerStates:
        """The same prefix, no rows."""
        other = copy.copy(self)
        other._cache, other._read = copy.copy(self._cache), {}
        other._cache.layers = list(self._cache.layers)
        return other

    def forget_rows(self) -> None:
        """Free what is held of the rows."""
        self._read = {}

    def read_prefix(self, layer: int, run: Run, hidden: Tensor) -> Tensor:
        """Read the next tokens of the prefix: hidden states [1, N, d]."""
        return run(hidden, self._with(layer, self._prefix[layer]))

    def read(self, layer: int, run: Run, hidden: Tensor, layout: Layout) -> Tensor:
        """Read new rows: hidden states [1, N, d] of the layout's tokens."""
        starts = layout.row_starts.tolist()
        of_length: dict[int, list[int]] = {}
        for row, (start, end) in enumerate(itertools.pairwise(starts)):
            of_length.setdefault(end - start, []).append(row)
        found: Tensor | None = None
        for length, rows in of_length.items():
            begins = torch.tensor([starts[row] for row in rows]).unsqueeze(-1)
            tokens = to_device(begins + torch.arange(length), hidden.device)
            states = _selected(self._prefix[layer], [0] * len(rows))
            out = run(hidden[0, tokens], self._with(layer, states))
            self._read.setdefault(layer, []).append(([layout.first_row + row for row in rows], states))
            if found is None:
                found = out.new_empty(hidden.shape[1], out.shape[-1])
            found[tokens] = out
        assert found is not None
        return found.unsqueeze(0)

    def step(self, layer: int, run: Run, hidden: Tensor) -> Tensor:
        """Read the next token of every row: hidden states [1, R, d]."""
        out = run(hidden.transpose(0, 1), self._with(layer, self._joined(layer)))
        return out.transpose(0, 1)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row may be named more than once."""
        for layer in self._read:
            self._read[layer] = [(list(range(len(rows))), _selected(self._joined(layer), rows))]

    def _with(self, layer: int, states: Any) -> Any:
        self._cache.layers[layer] = states
        return self._cache

    def _joined(self, layer: int) -> Any:
        """The states of all rows, in their order."""
        parts = self._read[layer]
        if len(parts) > 1 or parts[0][0] != sorted(parts[0][0]):
            order = [row for rows, _ in parts for row in rows]
            places = [0] * len(order)
            for place, row in enumerate(order):
                places[row] = place
            joined = _selected(_concatenated([states for _, states in parts]), places)
            self._read[layer] = parts = [(list(range(len(order))), joined)]
        return parts[0][1]


def _selected(states: Any, rows: Sequence[int]) -> Any:
    """A copy of a layer's states with these rows."""

    def select(tensor: Tensor) -> Tensor:
        return tensor.index_select(0, to_device(torch.tensor(rows), tensor.device))

    return _with_states(states, [states], lambda tensors: select(tensors[0]))


def _concatenated(parts: Sequence[Any]) -> Any:
    return _with_states(parts[0], parts, torch.cat)


def _with_states(like: Any, parts: Sequence[Any], make: Callable[[list[Tensor]], Tensor]) -> Any:
    made = copy.copy(like)
    for name, value in vars(like).items():
        if isinstance(value, dict):
            setattr(made, name, dict(value))
    for kind in _STATES:
        for index, tensor in getattr(like, kind, {}).items():
            if tensor is not None:
                getattr(made, kind)[index] = make([getattr(part, kind)[index] for part in parts])
    return made
