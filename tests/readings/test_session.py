"""A session of a model asks nothing of devices before a model is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from probegrid.compose import compose_cell
from probegrid.readings.session import ModelSession


def test_a_session_begins_before_cuda_does(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    monkeypatch.setattr(
        torch.cuda, "device_count", lambda: 2
    )  # as on a machine whose cards were measured before
    session = ModelSession(compose_cell([]), nothing, nothing, nothing, nothing, nothing)
    assert session.found_s == 0.0
