"""Cards by the names people use, with their rates, and what torch has code for."""

from __future__ import annotations

import pytest

from probegrid.errors import PlanError
from probegrid.hardware import cards
from probegrid.hardware.cards import GPUS, find_card, has_code, missing_code, recognize


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("H100 SXM", "H100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("2080 Ti", "RTX 2080 Ti"),
        ("rtx2080ti", "RTX 2080 Ti"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("4090", "RTX 4090"),
        ("t4", "T4"),
        ("Tesla T4", "T4"),
        ("V100", "V100 16GB"),
        ("v100 32gb", "V100 32GB"),
        ("A100", "A100 40GB"),
        ("a100-80gb", "A100 80GB"),
        ("h100", "H100 80GB"),
        ("H100 PCIe", "H100 PCIe"),
        ("H200", "H200"),
        ("L40S", "L40S"),
        ("rtx 6000 ada", "RTX 6000 Ada"),
        ("RTX A6000", "RTX A6000"),
    ],
)
def test_a_card_is_found_by_what_people_call_it(typed: str, name: str) -> None:
    assert find_card(typed) is GPUS[name]


def test_memory_tells_two_of_one_name_apart() -> None:
    assert find_card("A100", 80) is GPUS["A100 80GB"]
    assert find_card("V100", 20) is GPUS["V100 32GB"]


def test_an_unknown_card_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        PlanError, match=r"device_map\.gpu=H10 is not known; did you mean 'A10'\?.*gpu_memory_gb=24"
    ):
        find_card("H10")


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA T400", None),
    ],
)
def test_a_driver_s_name_is_recognized(listed: str, name: str | None) -> None:
    assert recognize(listed) is (None if name is None else GPUS[name])


def test_cards_before_ampere_lack_bfloat16() -> None:
    lacking = {name for name, card in GPUS.items() if card.lacks_bfloat16}
    turing = {"RTX 2080 Ti", "TITAN RTX", "Quadro RTX 6000", "Quadro RTX 8000", "T4"}
    assert lacking == {"GTX 1080 Ti", "V100 16GB", "V100 32GB", *turing}


def test_a_card_that_no_usual_wheel_has_code_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards.importlib.metadata, "version", lambda _: "2.13.0+cpu")
    with pytest.raises(
        PlanError, match=r"GTX 1080 Ti has compute capability 6\.1, .* from 7\.5 on.*RTX 2080 Ti"
    ):
        find_card("1080 Ti")
    assert missing_code(find_card("V100")) is not None, (
        "noted: it has 16-bit units, and CUDA 12.6 has code for it"
    )
    assert missing_code(find_card("2080 Ti")) is None


def test_where_the_last_wheels_for_it_are_installed_it_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards.importlib.metadata, "version", lambda _: "2.13.0+cu126")
    assert find_card("1080 Ti") is GPUS["GTX 1080 Ti"]
    assert missing_code(find_card("V100")) is None


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((6, 1), False), ((7, 0), False), ((7, 5), True), ((8, 0), True), ((8, 9), True), ((12, 1), True)],
)
def test_code_runs_on_later_minors_and_portable_code_on_all_that_is_later(
    capability: tuple[int, int], runs: bool
) -> None:
    assert has_code(capability, ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "compute_120"]) is runs


def test_torch_without_cuda_says_so_elsewhere() -> None:
    assert has_code((6, 1), [])
