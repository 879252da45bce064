"""A decoder for models that cannot share a prefix: whole prompts in a left-padded batch, the model's own attention.

Knows a transformers causal language model and token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from probegrid.inference.linear import fast_linear
from probegrid.inference.packed import give_back_attention
from probegrid.models.load import embedding_device


class PaddedDecoder:
    """The plain counterpart of ``SharedPrefixDecoder``: the same calls, each row holding its whole prompt."""

    can_be_recorded = False

    def __init__(self, model: PreTrainedModel, prefix: Sequence[int]) -> None:
        give_back_attention(model)
        self.model = model
        self.prefix = list(prefix)
        self._cache = DynamicCache(config=model.config)
        self._mask = torch.empty(0)
        self._positions: list[int] = []

    def lanes(self, rows: int) -> list[PaddedDecoder]:
        """This one alone."""
        return [self]

    def advance(self, lanes: Sequence[Callable[[], None]]) -> None:
        """Let the one lane there is take a step."""
        for lane in lanes:
            lane()

    def prefill(self, suffixes: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Replace all rows by new ones; logits [rows, vocabulary] of the token after each. ``room`` is not needed."""
        rows = [self.prefix + list(suffix) for suffix in suffixes]
        width = max(map(len, rows))
        tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        self._mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        self._cache = DynamicCache(config=self.model.config)
        self._positions = [len(row) for row in rows]
        return self._forward(tokens, (self._mask.cumsum(-1) - 1).clamp(min=0))

    def step(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Append one token to every row and return the logits [rows, vocabulary] of the next."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        ids = torch.as_tensor(tokens).unsqueeze(1)
        logits = self._forward(ids, torch.tensor(self._positions).unsqueeze(1))
        self._positions = [position + 1 for position in self._positions]
        return logits

    def recorded(self, tokens: Tensor, draws: Tensor | None, temperature: float) -> None:
        """None: its cache grows with every step, so that no two steps are alike."""

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; a row named several times is copied."""
        chosen = torch.tensor(rows)
        self._cache.reorder_cache(chosen)  # type: ignore[arg-type]  # int64, as it asks
        self._mask = self._mask[chosen]
        self._positions = [self._positions[row] for row in rows]

    def reset(self) -> None:
        """Forget all rows and free their memory."""
        self._cache = DynamicCache(config=self.model.config)
        self._positions = []

    def _forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        device = embedding_device(self.model)
        with torch.inference_mode(), fast_linear(self.model):
            output = self.model(
                input_ids=tokens.to(device),
                attention_mask=self._mask.to(device),
                position_ids=positions.to(device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: Tensor = output.logits
        return logits[:, -1]
