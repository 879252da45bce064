"""A model that is released is gone, and the search for it passes over what was there before it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.pool import ModelPool, frozen_by_another
from probegrid.models.request import ModelRequest
from probegrid.planning.placement import Placement
from probegrid.schema import Dtype, ModelConfig, QuantizationMethod


@pytest.fixture
def thawed() -> Iterator[None]:
    """Nothing is frozen, as in a program of a user's; the tests' own process froze what it imported."""
    was_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    frozen_by_another.cache_clear()
    yield
    frozen_by_another.cache_clear()
    if was_frozen:
        gc.freeze()


@pytest.fixture
def request_of(checkpoint: Callable[[str], Path]) -> ModelRequest:
    config = ModelConfig(path=str(checkpoint("llama")), dtype=Dtype.float32)
    return ModelRequest(
        find_checkpoint(config), config, QuantizationMethod.none, Placement.on_the_cpu(2, with_head=True)
    )


def test_a_released_model_is_gone_though_it_refers_to_itself(thawed: None, request_of: ModelRequest) -> None:
    with ModelPool() as pool:
        model = pool.get(request_of).model
        model.itself = [model]
        held = weakref.ref(model)
        del model
        assert gc.get_freeze_count() > 0
    assert held() is None
    assert gc.get_freeze_count() == 0


def test_what_somebody_else_froze_stays_frozen(thawed: None, request_of: ModelRequest) -> None:
    mark: list[object] = []  # by itself: what is frozen can end all the same, so their count may fall
    gc.freeze()
    with ModelPool() as pool:
        pool.get(request_of)
    assert not any(each is mark for each in gc.get_objects())  # which lists what is not frozen
    gc.unfreeze()
    assert any(each is mark for each in gc.get_objects())
