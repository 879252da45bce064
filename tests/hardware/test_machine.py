"""This machine's GPUs, as a driver lists them and as they were measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from probegrid.errors import PlanError
from probegrid.hardware.devices import GPUS
from probegrid.hardware.machine import has_unmeasured_gpu, rates_file, visible_cards, visible_gpus

LISTED = (
    "0, GPU-aa, NVIDIA H200, 143000\n1, GPU-bb, NVIDIA A100-SXM4-80GB, 81000\n2, GPU-cc, Odd Card, 9000\n"
)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that answers as the driver's does, and an empty cache."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


DIVIDED = """
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aa)
  MIG 3g.40gb     Device  0: (UUID: MIG-11)
  MIG 1c.2g.20gb  Device  1: (UUID: MIG-22)
GPU 1: NVIDIA A30 (UUID: GPU-bb)
  MIG 1g.6gb+me   Device  0: (UUID: MIG-33)
GPU 2: NVIDIA H200 (UUID: GPU-cc)
"""
CARDS = (
    "0, GPU-aa, NVIDIA A100-SXM4-80GB, [Insufficient Permissions], 8.0, Enabled\n"
    "1, GPU-bb, NVIDIA A30, 24000, 8.0, Enabled\n"
    "2, GPU-cc, NVIDIA H200, 143000, 9.0, Disabled\n"
)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "name", "memory_gb", "like", "compute", "memory"),
    [
        (None, "NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40, "A100 80GB", 3 / 7, 40 / 80),
        ("0", "NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40, "A100 80GB", 3 / 7, 40 / 80),
        ("MIG-2", "NVIDIA A100-SXM4-80GB MIG 1c.2g.20gb", 20, "A100 80GB", 1 / 7, 20 / 80),
        ("MIG-22,MIG-11", "NVIDIA A100-SXM4-80GB MIG 1c.2g.20gb", 20, "A100 80GB", 1 / 7, 20 / 80),
        ("GPU-b", "NVIDIA A30 MIG 1g.6gb+me", 6, "A30", 1 / 4, 6 / 24),
        ("2", "NVIDIA H200", 149.9, "H200", 1, 1),
    ],
)
def test_a_slice_of_a_card_is_a_gpu_and_the_only_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    name: str,
    memory_gb: float,
    like: str,
    compute: float,
    memory: float,
) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\n[ \"$1\" = -L ] && cat <<'END' && exit\n{DIVIDED}END\ncat <<'END'\n{CARDS}END\n"
    )
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (gpu,) = visible_gpus()
    assert (gpu.name, gpu.memory_gb) == (name, pytest.approx(memory_gb, abs=0.1))
    assert gpu.tflops == pytest.approx(GPUS[like].tflops * compute)
    assert gpu.bandwidth_gb_per_s == pytest.approx(GPUS[like].bandwidth_gb_per_s * memory)
    assert visible_cards() == ((visible or "MIG-11").split(",")[0],)
    assert has_unmeasured_gpu()


@pytest.mark.usefixtures("driver")
def test_a_gpu_that_shares_the_memory_of_the_cpu_has_what_is_available_there(tmp_path: Path) -> None:
    (tmp_path / "bin" / "nvidia-smi").write_text(
        "#!/bin/sh\necho '0, GPU-aa, NVIDIA GB10, [N/A], 12.1, [N/A]'\n"
    )
    (gpu,) = visible_gpus()
    assert gpu.memory_gb == pytest.approx(psutil.virtual_memory().available / 1e9, rel=0.2)


@pytest.mark.usefixtures("driver")
def test_a_gpu_whose_memory_the_driver_cannot_tell_is_refused_where_it_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "0, GPU-aa, NVIDIA H200, 143000, 9.0, Disabled\n1, GPU-bb, NVIDIA H200, [Unknown Error], 9.0, Disabled\n"
    (tmp_path / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{lines}END\n")
    with pytest.raises(PlanError, match=r"\[Unknown Error\] where the free memory of NVIDIA H200 \(GPU-bb\)"):
        visible_gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert len(visible_gpus()) == 1


def keep(rates: object) -> None:
    rates_file().parent.mkdir(parents=True)
    rates_file().write_text(json.dumps(rates))


@pytest.mark.usefixtures("driver")
def test_rates_are_the_table_s_until_they_were_measured() -> None:
    assert has_unmeasured_gpu()
    before = visible_gpus()
    assert [gpu.tflops for gpu in before[:2]] == [GPUS["H200"].tflops, GPUS["A100 80GB"].tflops]
    assert before[0].memory_gb == pytest.approx(149.9, abs=0.1)
    measured = {"bandwidth_gb_per_s": 4000.0, "tflops": 700.0, "link_gb_per_s": 50.0}
    keep({"GPU-aa": measured})
    first, *others = visible_gpus()
    assert (first.bandwidth_gb_per_s, first.tflops, first.link_gb_per_s) == (4000.0, 700.0, 50.0)
    assert first.memory_gb == before[0].memory_gb
    assert others == list(before[1:])
    assert has_unmeasured_gpu()


@pytest.mark.usefixtures("driver")
def test_gpus_are_numbered_as_a_process_numbers_them_that_has_asked_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (
        os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    )  # else CUDA would number another GPU 0 than the driver
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    uuids = [SimpleNamespace(uuid="cc"), SimpleNamespace(uuid="aa")]
    monkeypatch.setattr(torch.cuda, "get_device_properties", uuids.__getitem__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert [gpu.name for gpu in visible_gpus()] == ["Odd Card", "NVIDIA H200"]
    assert visible_cards() == ("GPU-cc", "GPU-aa")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert visible_cards() == ("2", "0")


@pytest.mark.usefixtures("driver")
def test_only_visible_gpus_count_in_the_order_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    keep({"GPU-aa": {"bandwidth_gb_per_s": 1.0, "tflops": 1.0, "link_gb_per_s": 1.0}})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb,0")
    assert [gpu.name for gpu in visible_gpus()] == ["NVIDIA A100-SXM4-80GB", "NVIDIA H200"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not has_unmeasured_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("damage", ["", "[]", '{"GPU-aa": {"tflops": 1}}', '{"GPU-aa": 3}'])
def test_a_damaged_file_is_as_good_as_none(damage: str) -> None:
    before = visible_gpus()
    keep({})
    rates_file().write_text(damage)
    assert visible_gpus() == before


@pytest.mark.usefixtures("driver")
def test_compute_capability_is_the_driver_s_or_else_the_table_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [gpu.capability for gpu in visible_gpus()] == [(9, 0), (8, 0), None]
    program = tmp_path / "newer" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\ncat <<'END'\n0, GPU-aa, Quadro T1000, 4000, 7.5\n1, GPU-bb, Tesla T4, 15000, [N/A]\nEND\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert [gpu.capability for gpu in visible_gpus()] == [(7, 5), (7, 5)]


@pytest.mark.usefixtures("driver")
def test_a_driver_that_does_not_know_compute_capability_is_asked_without(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    answers = program.read_text().removeprefix("#!/bin/sh\n")
    refuse = 'case "$1" in *compute_cap*) echo "Field \\"compute_cap\\" is not a valid field"; exit 2;; esac'
    program.write_text(f"#!/bin/sh\n{refuse}\n{answers}")
    assert [gpu.capability for gpu in visible_gpus()] == [(9, 0), (8, 0), None]
