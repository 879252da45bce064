"""What the machine did while something ran."""

from __future__ import annotations

import time

import psutil
import pytest
import torch

from probegrid.hardware import telemetry
from probegrid.hardware.telemetry import Telemetry


def wait_for_samples(running: Telemetry, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(running.series().get("system/cpu_utilization_percentage", ())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_series_carry_mlflow_s_names_and_rising_seconds() -> None:
    shown: list[str] = []
    with Telemetry(shown.append, every_s=0.02) as running:
        wait_for_samples(running, 4)
    series = running.series()
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(series)
    memory = series["system/system_memory_usage_megabytes"]
    assert len(memory) > 3
    assert memory[-1][1] == pytest.approx(psutil.virtual_memory().used / 1e6, rel=0.5)
    for points in series.values():
        assert [second for second, _ in points] == sorted(second for second, _ in points)
    assert bool(shown) == torch.cuda.is_available()
    ended = len(memory)
    time.sleep(0.1)
    assert len(running.series()["system/system_memory_usage_megabytes"]) == ended


def test_a_long_run_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MOST_SAMPLES", 8)
    with Telemetry(lambda _: None, every_s=0.002) as running:
        wait_for_samples(running, 4)
        time.sleep(0.5)
    points = running.series()["system/cpu_utilization_percentage"]
    assert 4 <= len(points) <= 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_gpu_is_shown() -> None:
    shown: list[str] = []
    with Telemetry(shown.append, every_s=0.05) as running:
        held = torch.ones(10**9, dtype=torch.uint8, device="cuda")
        time.sleep(0.3)
    for index in range(torch.cuda.device_count()):
        assert f"GPU {index} " in shown[-1]
    used = running.series()["system/gpu_0_memory_usage_megabytes"]
    assert used[-1][1] * 1e6 > held.nbytes
    busy = running.series()["system/gpu_0_utilization_percentage"]
    assert all(0 <= value <= 100 for _, value in busy)
