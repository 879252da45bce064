"""A decoder for models that only their own forward pass of one row is right for: each row by itself.

Behind the whole prompt it takes steps with the cache that the model itself makes, or none at all and reads the row anew
for every token. Knows a transformers causal language model and token ids.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from probegrid.inference.both_ways import token_types
from probegrid.inference.linear import fast_linear
from probegrid.inference.packed import give_back_attention
from probegrid.models.border import to_device
from probegrid.models.load import embedding_device

_CACHES = ("past_key_values", "cache_params", "state")
"""What models call the cache that they make and take."""


class OneByOneDecoder:
    """The plainest counterpart of ``SharedPrefixDecoder``: the same calls, no two rows in one pass."""

    can_be_recorded = False

    def __init__(self, model: PreTrainedModel, prefix: Sequence[int], *, cached: bool) -> None:
        """Begin.

        Args:
            model: a causal language model; its attention is its own from now on.
            prefix: token ids that every row begins with.
            cached: whether steps go on from the model's cache.
        """
        give_back_attention(model)
        self.model, self.prefix, self._cached = model, list(prefix), cached
        self._rows: list[list[int]] = []
        self._prompts: list[int] = []
        """Tokens of each row's prompt."""
        self._caches: list[dict[str, Any]] = []

    def lanes(self, rows: int) -> list[OneByOneDecoder]:
        """This one alone."""
        return [self]

    def advance(self, lanes: Sequence[Callable[[], None]]) -> None:
        """Let the one lane there is take a step."""
        for lane in lanes:
            lane()

    def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Replace all rows by new ones; logits [rows, vocabulary] of the token after each. ``room`` is not needed."""
        self._rows = [self.prefix + list(suffix) for suffix in suffixes]
        self._prompts = [len(row) for row in self._rows]
        read = [self._read(row, {}, len(row)) for row in self._rows]
        self._caches = [cache for _, cache in read]
        return torch.stack([logits for logits, _ in read])

    def step(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Append one token to every row and return the logits [rows, vocabulary] of the next."""
        found = []
        for row, token in enumerate(torch.as_tensor(tokens).tolist()):
            self._rows[row].append(token)
            ids = [token] if self._caches[row] else self._rows[row]
            logits, self._caches[row] = self._read(ids, self._caches[row], self._prompts[row])
            found.append(logits)
        return torch.stack(found)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row named several times is copied."""
        self._rows = [list(self._rows[row]) for row in rows]
        self._prompts = [self._prompts[row] for row in rows]
        once = {row: rows.index(row) for row in rows}
        self._caches = [
            self._caches[row] if once[row] == place else copy.deepcopy(self._caches[row])
            for place, row in enumerate(rows)
        ]

    def recorded(self, tokens: Tensor, draws: Tensor | None, temperature: float) -> None:
        """None: nothing here is worth it."""

    def reset(self) -> None:
        """Forget all rows and free their memory."""
        self._rows, self._prompts, self._caches = [], [], []

    def _read(
        self, token_ids: Sequence[int], cache: dict[str, Any], prompt: int
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits [vocabulary] behind some tokens of one row, and the cache then, by the model's name for it."""
        ids = torch.tensor([list(token_ids)], device=embedding_device(self.model))
        with torch.inference_mode(), fast_linear(self.model):
            output = self.model(
                input_ids=ids,
                **(cache or whole_row(self.model, ids, prompt)),
                use_cache=self._cached,
                **keeping(self.model, 1),
            )
        made = {}
        if self._cached:
            made = {name: found for name in _CACHES if (found := getattr(output, name, None)) is not None}
        logits: Tensor = output.logits
        return logits[0, -1], made


def whole_row(model: PreTrainedModel, ids: Tensor, prompt: int) -> dict[str, Tensor]:
    """What a model is told of a row [1, T] besides its tokens, of which so many are its prompt."""
    types = token_types(model, [prompt], ids.shape[1])
    # some families cannot do without a mask, which ``generate`` always gives them
    return {"attention_mask": torch.ones_like(ids)} | {
        name: to_device(each, ids.device) for name, each in types.items()
    }


def keeping(model: PreTrainedModel, logits: int) -> dict[str, int]:
    """The argument that lets a model compute no more than its last logits, where it has one."""
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": logits} if takes else {}
