"""Devices from a device map: this machine's, or described ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probegrid.errors import PlanError
from probegrid.hardware.devices import GPUS, Cpu, assumed_gpu, hardware_for
from probegrid.schema import DeviceMapConfig, PlacementStrategy


def test_described_gpus_need_not_be_here() -> None:
    hardware = hardware_for(DeviceMapConfig(gpus=4, gpu_memory_gb=11), cpu=Cpu(memory_gb=16))
    assert [gpu.memory_gb for gpu in hardware.gpus] == [11] * 4
    assert hardware.cpu.memory_gb is None, "the laptop's memory says nothing of the cluster's"


def test_visible_gpus_are_used_as_measured() -> None:
    measured = replace(GPUS["H200"], memory_gb=130.0, tflops=771.0)
    hardware = hardware_for(DeviceMapConfig(), visible=[measured], cpu=Cpu(memory_gb=64))
    assert hardware.gpus == (measured,)
    assert hardware.cpu.memory_gb == 64


def test_memory_limit_caps_what_is_free() -> None:
    hardware = hardware_for(DeviceMapConfig(gpu_memory_gb=10.5), visible=[GPUS["H200"], GPUS["T4"]])
    assert [gpu.memory_gb for gpu in hardware.gpus] == [10.5, 10.5]


@pytest.mark.parametrize(
    ("strategy", "count"),
    [(PlacementStrategy.cpu, 0), (PlacementStrategy.single, 1), (PlacementStrategy.auto, 2)],
)
def test_strategy_limits_the_gpus(strategy: PlacementStrategy, count: int) -> None:
    hardware = hardware_for(DeviceMapConfig(strategy=strategy), visible=[GPUS["T4"]] * 2)
    assert len(hardware.gpus) == count


def test_cpu_memory_given_is_kept() -> None:
    hardware = hardware_for(DeviceMapConfig(gpus=1, gpu_memory_gb=24, cpu_memory_gb=32))
    assert hardware.cpu.memory_gb == 32


def test_gpus_neither_visible_nor_described_are_refused() -> None:
    with pytest.raises(PlanError, match=r"device_map\.gpu_memory_gb=24"):
        hardware_for(DeviceMapConfig(gpus=2))


def test_a_gpu_known_by_its_memory_is_a_slow_one() -> None:
    assert assumed_gpu(11).name == "GTX 1080 Ti"
    assert assumed_gpu(80).name == "A100 80GB"
    assert assumed_gpu(10.5).memory_gb == 10.5
    assert assumed_gpu(192).name == "H200"


def test_a_named_card_is_planned_with_its_own_rates() -> None:
    described = DeviceMapConfig(gpus=2, gpu="h100", gpu_memory_gb=80)
    assert hardware_for(described).gpus == (replace(GPUS["H100 80GB"], memory_gb=80),) * 2
    assert hardware_for(DeviceMapConfig(gpu="T4")).gpus == (GPUS["T4"],), "one, where none is here"


def test_a_named_card_that_is_here_counts_as_it_is() -> None:
    here = replace(GPUS["H100 80GB"], name="NVIDIA H100 80GB HBM3", memory_gb=84.0, tflops=750.0)
    beside = replace(GPUS["H200"], name="NVIDIA H200")
    for visible in ([here, beside, here], [here, here]):
        assert hardware_for(DeviceMapConfig(gpu="H100"), visible=visible).gpus == (here, here)
    capped = hardware_for(DeviceMapConfig(gpus=2, gpu="H100", gpu_memory_gb=80), visible=[here, here])
    assert [gpu.memory_gb for gpu in capped.gpus] == [80, 80]


def test_a_named_card_that_is_not_here_is_planned_beside_others() -> None:
    assert hardware_for(DeviceMapConfig(gpu="T4"), visible=[GPUS["H200"]]).gpus == (GPUS["T4"],)


def test_of_a_card_known_by_its_memory_alone_nothing_is_said_of_types() -> None:
    assert assumed_gpu(11).capability is None
    assert not assumed_gpu(11).lacks_bfloat16
