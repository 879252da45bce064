"""Whatever is missing on the machine is one sentence that says what was found, what is needed and the way out."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from probegrid.errors import PlanError
from probegrid.hardware.devices import Cpu, Hardware, assumed_gpu
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.preflight import (
    DiskNeed,
    GpuState,
    Machine,
    disk_needs,
    parse_users,
    preflight,
    this_machine,
)
from probegrid.planning.plan import Plan, plan
from probegrid.planning.workload import Workload
from probegrid.schema import Architecture, DeviceMapConfig, Dtype, QuantizationMethod

GB = 10**9
SMALL = Architecture(
    layers=4, hidden=1024, heads=8, kv_heads=8, head_dim=128, intermediate=4096, vocab=8000, context=2048
)
FREE = GpuState("H100", 70 * GB, (9, 0))
GOOD = Machine((FREE, FREE), "", 64 * GB, "0.50.2")
usage = namedtuple("usage", "free")


def plan_on(*gpus_gb: float) -> Plan:
    gpus = tuple(replace(assumed_gpu(11), memory_gb=memory_gb) for memory_gb in gpus_gb)
    return plan(
        SMALL,
        dtype=Dtype.bfloat16,
        quantization=QuantizationMethod.none,
        device_map=DeviceMapConfig(overhead_gb=0.0),
        hardware=Hardware(gpus, Cpu()),
        workload=Workload(8, 50, 100, 10),
    )


def check(plan: Plan, machine: Machine, method: str = "none", disk: tuple[DiskNeed, ...] = ()) -> list[str]:
    return preflight(plan, machine, Dtype.bfloat16, QuantizationMethod(method), disk)


def refused(plan: Plan, machine: Machine, method: str = "none", disk: tuple[DiskNeed, ...] = ()) -> str:
    with pytest.raises(PlanError) as error:
        check(plan, machine, method, disk)
    return str(error.value)


def test_a_machine_that_has_everything_passes(tmp_path: Path) -> None:
    assert check(plan_on(80.0), GOOD, "nf4", (DiskNeed(tmp_path, 1000, "the readings"),)) == []


def test_a_gpu_that_is_taken_is_named_with_who_takes_it() -> None:
    taken = replace(FREE, free_bytes=GB // 100, users=("python (pid 4711, 60.1 GB)",))
    message = refused(plan_on(80.0), replace(GOOD, gpus=(taken, FREE)))
    assert (
        "GPU 0 (H100) has 0.0 GB free, python (pid 4711, 60.1 GB) using the rest, and the plan needs"
        in message
    )
    assert "CUDA_VISIBLE_DEVICES" in message


def test_no_gpu_at_all_says_why() -> None:
    machine = replace(GOOD, gpus=(), cuda_obstacle="torch 2.6 is built without CUDA")
    message = refused(plan_on(80.0), machine)
    assert (
        message == "The plan uses 1 GPU(s) and torch 2.6 is built without CUDA; `device_map=cpu` needs none."
    )


def test_fewer_gpus_than_planned() -> None:
    found = plan_on(0.09, 0.09, 0.09)
    assert len(found.placement.gpus) == 3
    assert "uses 3 GPUs and 2 are visible" in refused(found, GOOD)


def test_cpu_memory() -> None:
    message = refused(plan_on(), replace(GOOD, cpu_free_bytes=10**6))
    assert "0.0 GB of CPU memory are free and the plan needs" in message


@pytest.mark.parametrize(
    ("version", "there"), [(None, "is not installed"), ("0.43.1", "0.43.1 is installed")]
)
def test_bitsandbytes_is_needed_to_quantize(version: str | None, there: str) -> None:
    machine = replace(GOOD, bitsandbytes=version)
    assert check(plan_on(80.0), machine) == []
    message = refused(plan_on(80.0), machine, "nf4")
    assert message.startswith(f"quantization=nf4 needs bitsandbytes 0.46 and it {there}")


def test_everything_that_is_missing_is_said_at_once() -> None:
    machine = Machine((), "torch sees none", 10**6, None)
    assert refused(plan_on(80.0), machine, "int8").count(";") == 2


def test_disk_needs_of_one_disk_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10 * GB))
    deep = tmp_path / "not" / "there" / "yet"
    needs = (DiskNeed(deep, 4 * GB, "the readings"), DiskNeed(tmp_path, 7 * GB, "the download"))
    message = refused(plan_on(80.0), GOOD, disk=needs)
    assert "has 10.0 GB free and 11.0 GB will be written, most of it the download" in message
    assert check(plan_on(80.0), GOOD, disk=needs[:1]) == []


def test_what_will_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = plan_on(80.0)
    hub = Checkpoint("some/model", "abc", "some/model@abc", {})

    def nbytes(checkpoint: Checkpoint, what: str, *, keeps: bool = False) -> int:
        needs = disk_needs(found, checkpoint, store_dir="store", results_dir="results", keeps=keeps)
        return sum(need.nbytes for need in needs if what in need.what)

    assert nbytes(hub, "download") == found.download_bytes
    blobs = tmp_path / "models--some--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "1234").write_bytes(bytes(1000))
    assert nbytes(hub, "download") == found.download_bytes - 1000
    assert nbytes(replace(hub, commit=None), "download") == 0
    assert nbytes(hub, "quantized copy", keeps=True) == found.disk_bytes - found.download_bytes


def test_slow_bfloat16_is_a_note() -> None:
    old = replace(FREE, name="RTX 2080 Ti", capability=(7, 5))
    (note,) = check(plan_on(80.0), replace(GOOD, gpus=(old,)))
    assert "GPU 0 (RTX 2080 Ti) computes bfloat16 slowly" in note


def test_a_card_that_this_torch_has_no_code_for_is_refused() -> None:
    old = replace(FREE, name="GTX 1080 Ti", capability=(6, 1))
    machine = replace(GOOD, gpus=(old,), architectures=("sm_75", "sm_80", "sm_90"))
    message = refused(plan_on(80.0), machine)
    assert "GPU 0 (GTX 1080 Ti) has compute capability 6.1" in message
    assert "sm_75, sm_80, sm_90 alone" in message
    assert (
        check(plan_on(80.0), replace(machine, gpus=(replace(old, capability=(7, 5)),))) != []
    )  # bfloat16 is slow


def test_nvidia_smi_s_list_is_read() -> None:
    listed = "GPU-1, 4711, /usr/bin/python3, 57344\nGPU-1, 12, [Not Found], [N/A]\nnonsense\n"
    assert parse_users(listed) == {"GPU-1": ["python3 (pid 4711, 60.1 GB)", "[Not Found] (pid 12)"]}


def test_this_machine_can_be_asked() -> None:
    machine = this_machine(plan_on())
    assert machine.gpus == ()
    assert machine.cpu_free_bytes > 0
    assert machine.bitsandbytes is not None
