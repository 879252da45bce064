"""Batches that do not fit are halved; every example is done once, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from probegrid.errors import RunError
from probegrid.readings.batches import halving


def in_room_for(most: int, tried: list[int]) -> object:
    def attempt(part: Sequence[int]) -> list[int] | None:
        tried.append(len(part))
        return [10 * index for index in part] if len(part) <= most else None

    return attempt


def test_batches_that_do_not_fit_are_halved_until_they_do() -> None:
    tried: list[int] = []
    done = list(halving([[0, 1, 2, 3, 4], [], [5]], in_room_for(2, tried), str))
    assert done == [([0, 1], [0, 10]), ([2], [20]), ([3, 4], [30, 40]), ([5], [50])]
    assert tried == [5, 2, 3, 1, 2, 1]


def test_an_example_that_does_not_fit_alone_is_named() -> None:
    with pytest.raises(RunError, match="number 7 is too large"):
        list(halving([[7, 8]], in_room_for(0, []), lambda index: f"number {index} is too large"))
