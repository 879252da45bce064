"""On a GPU: its rates, measured and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from probegrid.hardware.machine import has_unmeasured_gpu, read_rates, visible_gpus
from probegrid.hardware.rates import measure, measure_unknown

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def test_rates_are_measured_once_and_plans_count_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert has_unmeasured_gpu()
    assert len(measure_unknown()) == torch.cuda.device_count()
    assert not has_unmeasured_gpu()
    assert measure_unknown() == []
    kept = list(read_rates().values())
    assert sorted(gpu.tflops for gpu in visible_gpus()) == sorted(rates.tflops for rates in kept)
    before = torch.cuda.memory_allocated(0)
    again = measure(0)
    for name in ("bandwidth_gb_per_s", "tflops", "link_gb_per_s"):
        assert any(getattr(rates, name) == pytest.approx(getattr(again, name), rel=0.2) for rates in kept)
    assert torch.cuda.memory_allocated(0) == before
