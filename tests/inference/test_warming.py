"""What loads kernels ahead of a reading goes through a layer's attention as the reading does, and harms nothing."""

from __future__ import annotations

import threading

import pytest
import torch

from probegrid.inference import warming


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64}, (8, 2, 16)),
        ({"text_config": {"num_attention_heads": 4, "hidden_size": 64}}, (4, 4, 16)),
        ({"n_head": 4, "n_embd": 64}, None),
    ],
)
def test_kernels_are_those_of_the_checkpoint_s_heads(
    config: dict[str, object], shape: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[int, int, int]] = []
    use = warming._use

    def on_the_cpu(heads: int, kv_heads: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        assert device == torch.device("cuda", 1)
        use(heads, kv_heads, width, dtype, torch.device("cpu"))
        used.append((heads, kv_heads, width))

    monkeypatch.setattr(warming, "_use", on_the_cpu)
    monkeypatch.setattr(warming, "has_kernels", lambda like: True)
    monkeypatch.setattr(torch, "empty", lambda *_, **named: torch.zeros(0))
    warming.load_kernels(config, torch.float32, [1]).join()
    assert used == ([] if shape is None else [shape])


def test_what_cannot_be_loaded_is_left_to_the_first_pass() -> None:
    ended: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, ended.append
    try:
        warming.load_kernels({"num_attention_heads": 0}, torch.float16, [0]).join()
        warming.load_kernels({"num_attention_heads": 3, "hidden_size": 64}, torch.float16, [99]).join()
    finally:
        threading.excepthook = before
    assert not ended
