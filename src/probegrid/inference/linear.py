"""Linear layers of float32 on a CPU by oneDNN, which torch has for its compiler and does not use by itself.

Knows torch's linear layers. Its own product there is MKL's, which is a tenth to a third slower on CPUs that are not
Intel's (LOG.md), and differs from this one in the order of a sum alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_LINEAR = nn.Linear.forward


@contextmanager
def fast_linear(model: nn.Module) -> Iterator[None]:
    """Let a model's linear layers of float32 on a CPU compute by oneDNN as long as this lasts; others as ever.

    Within another of its kind it changes nothing: passes that go side by side do not end in the order they began.

    The layers' class is told, not the layers: nothing of the model changes, and another thread gets the same product
    to the same accuracy.
    """
    if nn.Linear.forward is _forward or not _is_worth_it(model):
        yield
        return
    before = nn.Linear.forward
    nn.Linear.forward = _forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Linear.forward = before  # type: ignore[method-assign]


def _is_worth_it(model: nn.Module) -> bool:
    parameter = next(model.parameters(), None)
    return (
        parameter is not None
        and parameter.device.type == "cpu"
        and parameter.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _forward(self: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002  # torch's name, which callers may use
    weight = self.weight
    if input.dtype != torch.float32 or weight.dtype != torch.float32 or input.device.type != "cpu":
        return _LINEAR(self, input)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, self.bias, "none", [], "")
    return product
