"""A table of GPUs by the names people use, with what plain code reaches on each.

Knows datasheets, which of them torch's wheels have code for, and how far from their datasheets real code stays.

Units: GB is 10^9 bytes; rates are GB/s and TFLOP/s (10^12 operations).
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from probegrid.errors import PlanError, closest

Capability = tuple[int, int]
"""NVIDIA's compute capability, major and minor."""

AMPERE: Capability = (8, 0)
"""The first with bfloat16 units: before it bfloat16 is emulated, several times slower than float16."""
TENSOR_CORES: Capability = (7, 0)
"""The first that multiply float16 faster than float32."""
_WHEELS: Capability = (7, 5)
"""The oldest that torch's CUDA 13 wheels, those of PyPI, have code for (pytorch/pytorch#172352)."""
_LEGACY_WHEELS: Capability = (5, 0)
"""The oldest of its CUDA 12.6 wheels, the last that have any code for cards before 7.5 (the same issue)."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, with the rates that plain code reaches on it."""

    name: str
    memory_gb: float
    """Memory in GB; what is free, where it was measured."""
    bandwidth_gb_per_s: float
    """Device memory read and written by a large copy."""
    tflops: float
    """A large dense 16-bit matrix product, accumulated in float32."""
    link_gb_per_s: float
    """A large copy from pinned CPU memory."""
    capability: Capability | None = None
    """None where the memory alone is known."""

    @property
    def lacks_bfloat16(self) -> bool:
        """Whether bfloat16 is known to be emulated on it."""
        return self.capability is not None and self.capability < AMPERE


def _datasheet(
    name: str, memory_gb: float, bandwidth: float, tflops: float, link: float, capability: Capability
) -> Gpu:
    """A GPU from its datasheet: bandwidth, dense 16-bit rate and one-way host link, each as far as it is reached.

    The three shares are an H200's: a device copy at 4.06 of 4.8 TB/s, a matrix product at 771 of 989 TFLOP/s,
    a pinned copy at 55 of 63 GB/s.
    """
    return Gpu(name, memory_gb, 0.85 * bandwidth, 0.78 * tflops, 0.87 * link, capability)


_PCIE3, _PCIE4, _PCIE5 = 15.75, 31.5, 63.0
"""GB/s one way over 16 lanes (PCI-SIG: 8, 16 and 32 GT/s, 128b/130b)."""

GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _datasheet("GTX 1080 Ti", 11, 484, 11.3, _PCIE3, (6, 1)),  # no 16-bit units: the float32 rate
        _datasheet("RTX 2080 Ti", 11, 616, 53.8, _PCIE3, (7, 5)),
        _datasheet("TITAN RTX", 24, 672, 130.5, _PCIE3, (7, 5)),
        _datasheet("Quadro RTX 6000", 24, 672, 130.5, _PCIE3, (7, 5)),
        _datasheet("Quadro RTX 8000", 48, 672, 130.5, _PCIE3, (7, 5)),
        _datasheet("RTX 3090", 24, 936, 71, _PCIE4, (8, 6)),
        _datasheet("RTX 3090 Ti", 24, 1008, 80, _PCIE4, (8, 6)),
        _datasheet("RTX 4090", 24, 1008, 165.2, _PCIE4, (8, 9)),
        _datasheet("RTX 5090", 32, 1792, 209.5, _PCIE5, (12, 0)),
        _datasheet("RTX A5000", 24, 768, 111.1, _PCIE4, (8, 6)),
        _datasheet("RTX A6000", 48, 768, 154.8, _PCIE4, (8, 6)),
        _datasheet("RTX 6000 Ada", 48, 960, 364.2, _PCIE4, (8, 9)),
        _datasheet("T4", 16, 300, 65, _PCIE3, (7, 5)),
        _datasheet("V100 16GB", 16, 900, 125, _PCIE3, (7, 0)),
        _datasheet("V100 32GB", 32, 900, 125, _PCIE3, (7, 0)),
        _datasheet("A10", 24, 600, 125, _PCIE4, (8, 6)),
        _datasheet("A30", 24, 933, 165, _PCIE4, (8, 0)),
        _datasheet("A40", 48, 696, 149.7, _PCIE4, (8, 6)),
        _datasheet("A100 40GB", 40, 1555, 312, _PCIE4, (8, 0)),
        _datasheet("A100 80GB", 80, 2039, 312, _PCIE4, (8, 0)),
        _datasheet("L4", 24, 300, 121, _PCIE4, (8, 9)),
        _datasheet("L40", 48, 864, 181, _PCIE4, (8, 9)),
        _datasheet("L40S", 48, 864, 362, _PCIE4, (8, 9)),
        _datasheet("H100 80GB", 80, 3350, 989, _PCIE5, (9, 0)),
        _datasheet("H100 PCIe", 80, 2000, 756, _PCIE5, (9, 0)),
        _datasheet("H100 NVL", 94, 3900, 835, _PCIE5, (9, 0)),
        _datasheet("H200", 141, 4800, 989, _PCIE5, (9, 0)),
    )
}
"""Memory, memory bandwidth and dense 16-bit tensor rate with float32 accumulation (half of what is printed "with
sparsity"), from NVIDIA's own papers:

- GeForce and TITAN: the tables of the whitepapers "NVIDIA Turing GPU architecture" (2018), "NVIDIA Ampere GA102 GPU
  architecture" (2021; the 3090 Ti by its 10752 cores at 1.86 GHz), "NVIDIA Ada GPU architecture" (2022) and "NVIDIA RTX
  Blackwell GPU architecture" (2025). GTX 1080 Ti: its product page.
- Quadro RTX, RTX A5000 and A6000, RTX 6000 Ada: appendices of the same papers, and each card's datasheet.
- T4, V100 (SXM2), A10, A30, A40, A100 (SXM4), L4, L40, L40S, H100 (SXM5, PCIe, NVL), H200 (SXM): the datasheet of each.
- Compute capabilities: developer.nvidia.com/cuda-gpus.

Ours are measured on an H100 and an H200 alone (LOG.md); the others are these figures times the H200's shares.
"""


def find_card(name: str, memory_gb: float | None = None) -> Gpu:
    """A card of the table by what people or its driver call it: ``2080 Ti``, ``h100``, ``NVIDIA A100-SXM4-80GB``.

    Args:
        name: case, blanks, and the words that are in many names do not matter.
        memory_gb: where a card is sold with several memories and the name does not say which, the smallest with as
            much is taken; None: the smallest.

    Raises:
        PlanError: there is none of this name, or torch has no code for it.
    """
    wanted = _key(name)
    named = [card for card in GPUS.values() if wanted in (_key(card.name), _key(family(card)))]
    if not named and (listed := recognize(name)) is not None:  # as nvidia-smi calls it
        named = [listed]
    if not named:
        raise PlanError(
            f"device_map.gpu={name} is not known; {closest(name.upper(), GPUS)}. For another card leave the name out "
            "and say its memory: `device_map.gpu_memory_gb=24`."
        )
    enough = [card for card in named if memory_gb is None or card.memory_gb >= memory_gb]
    card = min(enough, key=lambda each: each.memory_gb) if enough else named[-1]
    _refuse_without_code(card)
    return card


def recognize(listed: str) -> Gpu | None:
    """The card of the table by the name that a driver gives it (``NVIDIA A100-SXM4-80GB``); None: not in the table."""
    words = set(listed.replace("-", " ").split())
    named = [gpu for name, gpu in GPUS.items() if set(name.split()) <= words]
    return max(named, key=lambda gpu: len(gpu.name), default=None)


def family(card: Gpu) -> str:
    """A card's name without its memory: one is sold with several."""
    return _SIZE.sub("", card.name)


def missing_code(card: Gpu) -> str | None:
    """What torch's wheels that are installed here, or else those of PyPI, lack for a card; None if nothing."""
    oldest = _oldest_of_wheels()
    if card.capability is None or card.capability >= oldest:
        return None
    has, begins = (".".join(map(str, each)) for each in (card.capability, oldest))
    return (
        f"{card.name} has compute capability {has}, and torch's wheels have code from {begins} on; those of CUDA 12.6 "
        "(https://download.pytorch.org/whl/cu126) are the last that have it"
    )


def has_code(capability: Capability, architectures: Sequence[str]) -> bool:
    """Whether code for some architectures (``torch.cuda.get_arch_list()``) runs on a card.

    Binary code (``sm_75``) runs on later minors of its own major, portable code (``compute_75``) on all later ones.
    """
    for architecture in architectures:
        kind, _, digits = architecture.rstrip("af").partition("_")
        built = (int(digits[:-1]), int(digits[-1]))
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return not architectures  # torch without CUDA knows none, and says so elsewhere


def assumed_gpu(memory_gb: float) -> Gpu:
    """A GPU whose memory alone is known: the slowest of the smallest in the table that have as much."""
    enough = [gpu for gpu in GPUS.values() if gpu.memory_gb >= memory_gb]
    if not enough:
        largest = max(GPUS.values(), key=lambda gpu: gpu.memory_gb)
        return replace(largest, memory_gb=memory_gb, capability=None)
    smallest = min(gpu.memory_gb for gpu in enough)
    slowest = min((gpu for gpu in enough if gpu.memory_gb == smallest), key=lambda gpu: gpu.tflops)
    return replace(slowest, memory_gb=memory_gb, capability=None)


_SIZE = re.compile(r" \d+GB$")
_IN_MANY_NAMES = re.compile(r"nvidia|geforce|tesla|quadro|generation|rtx|gtx|sxm\d?|hbm\d?e?")


def _key(name: str) -> str:
    """A name without what people leave out of it."""
    return re.sub(r"[^a-z0-9]", "", _IN_MANY_NAMES.sub("", name.lower()))


def _refuse_without_code(card: Gpu) -> None:
    """Refuse a card that neither torch's usual wheels nor 16-bit arithmetic serve; one that has either is noted.

    Raises:
        PlanError: the wheels have no code for it, and it multiplies float16 no faster than float32.
    """
    lacks = missing_code(card)
    if lacks is not None and card.capability is not None and card.capability < TENSOR_CORES:
        raise PlanError(
            f"device_map.gpu: {lacks}, and it has no 16-bit units; choose a card from the RTX 2080 Ti on, or "
            "device_map=cpu."
        )


def _oldest_of_wheels() -> Capability:
    """Of the torch that is installed, by its version alone; of PyPI's where it is built without CUDA."""
    try:
        build = importlib.metadata.version("torch").partition("+")[2]
    except importlib.metadata.PackageNotFoundError:
        return _WHEELS
    return _LEGACY_WHEELS if build == "cu126" else _WHEELS
