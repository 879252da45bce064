"""What a copy between GPUs waits for before it begins."""

from __future__ import annotations

import torch

from probegrid.models import border


class Stream:
    """A stream that tells what it is made to wait for."""

    def __init__(self) -> None:
        self.waits: list[object] = []

    def wait_event(self, event: object) -> None:
        self.waits.append(event)

    def wait_stream(self, stream: object) -> None:
        self.waits.append(stream)


def test_what_is_known_to_be_written_waits_for_that_alone() -> None:
    leaving, computing, written = Stream(), object(), object()
    hidden, rotation = torch.zeros(2), torch.ones(2)
    border._await_written([hidden], leaving, computing)  # type: ignore[arg-type]
    border.note_written(hidden, written)  # type: ignore[arg-type]
    border._await_written([hidden], leaving, computing)  # type: ignore[arg-type]
    border._await_written([hidden, rotation], leaving, computing)  # type: ignore[arg-type]
    assert leaving.waits == [computing, written, computing]


def test_a_tensor_made_of_another_is_not_known_to_be_written() -> None:
    hidden = torch.zeros(2)
    border.note_written(hidden, object())  # type: ignore[arg-type]
    leaving, computing = Stream(), object()
    border._await_written([hidden + 1], leaving, computing)  # type: ignore[arg-type]
    border._await_written([hidden.view(2)], leaving, computing)  # type: ignore[arg-type]
    assert leaving.waits == [computing, computing]
