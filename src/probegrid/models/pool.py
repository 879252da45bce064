"""The model that is in memory now, shared by the cells that need it.

Knows when one model serves another request; must not know how a model is loaded.
"""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from probegrid.models.load import LoadedModel, ModelRequest, load_model
from probegrid.models.truncation import load_truncated


class ModelPool:
    """Holds at most one model, so that cells which need the same one load it once."""

    def __init__(self) -> None:
        self._held: tuple[ModelRequest, int | None] | None = None
        self._loaded: LoadedModel | None = None

    def get(self, request: ModelRequest, deepest_layer: int | None = None) -> LoadedModel:
        """A model for this request; another one is released fully before it is loaded.

        Args:
            request: the weights and their devices.
            deepest_layer: blocks to load, for activations (``truncation.load_truncated``), which a deeper or a
                whole model of the same weights serves as well, wherever it lies; None: the whole model, with
                its head.
        """
        if self._loaded is None or not self._serves(request, deepest_layer):
            self.release()
            self._loaded = (
                load_model(request) if deepest_layer is None else load_truncated(request, deepest_layer)
            )
            self._held = (request, deepest_layer)
        return self._loaded

    def _serves(self, request: ModelRequest, deepest_layer: int | None) -> bool:
        if self._held is None or deepest_layer is None:
            return self._held == (request, None)
        held, blocks = self._held
        same_weights = replace(request, device_map=held.device_map, placement=held.placement) == held
        return same_weights and (blocks is None or deepest_layer <= blocks)

    def release(self) -> None:
        """Free the model that is held, if any, on every device."""
        self._held = self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
