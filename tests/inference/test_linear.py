"""Linear layers by oneDNN: the same product, as long as it is asked for, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from probegrid.inference.linear import fast_linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


class Loud(nn.Linear):
    """A layer of another class has a product of its own."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A line for each product that torch's own way computes meanwhile."""
    made: list[int] = []
    from probegrid.inference import linear

    own = linear._LINEAR
    monkeypatch.setattr(linear, "_LINEAR", lambda layer, inputs: made.append(1) or own(layer, inputs))
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 33), (2, 5, 33), (1, 1, 33)])
def test_the_product_is_the_same_and_torch_s_own_way_is_back_after_it(
    shape: tuple[int, ...], bias: bool, calls: list[int]
) -> None:
    torch.manual_seed(0)
    layer, inputs, own = nn.Linear(33, 65, bias=bias), torch.randn(shape), nn.Linear.forward
    expected = layer(inputs)
    with torch.inference_mode(), fast_linear(layer):
        found = layer(inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not calls
    assert nn.Linear.forward is own
    with pytest.raises(RuntimeError), fast_linear(layer):
        layer(torch.randn(3, 4))
    assert nn.Linear.forward is own, "also after a failure"


def test_other_types_are_left_to_torch(calls: list[int]) -> None:
    whole, half = nn.Linear(8, 8), nn.Linear(8, 8).bfloat16()
    with torch.inference_mode(), fast_linear(nn.ModuleList([whole, half])):
        assert half(torch.randn(2, 8).bfloat16()).dtype == torch.bfloat16
    assert len(calls) == 1
    own = nn.Linear.forward
    with fast_linear(half):
        assert nn.Linear.forward is own


def test_a_layer_of_another_class_keeps_what_it_adds() -> None:
    torch.manual_seed(0)
    layer, inputs = Loud(8, 8), torch.randn(3, 8)
    expected = layer(inputs)
    with torch.inference_mode(), fast_linear(layer):
        torch.testing.assert_close(layer(inputs), expected)
