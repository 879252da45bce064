"""The model that is in memory now, shared by the cells that need it.

Knows when one model serves another request.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import cache
from types import TracebackType
from typing import Self

import torch

from probegrid.models.load import LoadedModel, load_model
from probegrid.models.load_truncated import load_truncated
from probegrid.models.request import ModelRequest


class ModelPool:
    """Holds at most one model, so that cells which need the same one load it once; as a context manager, no longer."""

    def __init__(self) -> None:
        self._held: tuple[ModelRequest, int | None] | None = None
        self.loaded: LoadedModel | None = None
        self._may_hold = False
        self._froze = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def get(self, request: ModelRequest, deepest_layer: int | None = None) -> LoadedModel:
        """A model for this request; another one is released fully before it is loaded.

        Args:
            request: the weights and their devices.
            deepest_layer: blocks to load, for activations (``load_truncated``), which a deeper or a
                whole model of the same weights serves as well, wherever it lies; None: the whole model, with
                its head.
        """
        if self.loaded is None or not self._serves(request, deepest_layer):
            self.release()
            self._may_hold = True  # and what a load that fails leaves behind
            self._pass_over_what_is_there()
            self.loaded = (
                load_model(request) if deepest_layer is None else load_truncated(request, deepest_layer)
            )
            self._held = (request, deepest_layer)
        return self.loaded

    def _serves(self, request: ModelRequest, deepest_layer: int | None) -> bool:
        if self._held is None or deepest_layer is None:
            return self._held == (request, None)
        held, blocks = self._held
        return _same_weights(held, request) and (blocks is None or deepest_layer <= blocks)

    def make_way(self, request: ModelRequest) -> bool:
        """Release a model of other weights, so that what is free now is free for this request.

        Returns:
            Whether (some of) the request's weights are held, wherever they lie.
        """
        if self._held is not None and _same_weights(self._held[0], request):
            return True
        self.release()
        return False

    def _pass_over_what_is_there(self) -> None:
        """Leave what was made before the model out of the search for it, a million objects of what is imported.

        Looking at them takes a third of a second. Who froze them before, thaws them.
        """
        if not frozen_by_another():
            gc.freeze()
            self._froze = True

    def release(self) -> None:
        """Free the model that is held, if any, on every device."""
        self._held = self.loaded = None
        if not self._may_hold:
            return
        self._may_hold = False
        gc.collect()
        if self._froze:
            gc.unfreeze()
            self._froze = False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@cache
def frozen_by_another() -> bool:
    """Whether what this process had was frozen before any pool did: asked once, for it counts a million objects.

    A process that freezes and then forks asks before it forks, so that none of those it forks has to.
    """
    return gc.get_freeze_count() > 0


def _same_weights(first: ModelRequest, second: ModelRequest) -> bool:
    """Whether two requests differ at most in where the weights lie."""
    return replace(second, placement=first.placement) == first
