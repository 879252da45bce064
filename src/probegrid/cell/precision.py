"""The type a cell's model computes in: the one asked for, or float16 where cards have no bfloat16 units.

Knows which cards a device map means. The type is part of a reading's key, so that it is chosen before the key is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from probegrid.hardware.cards import missing_code
from probegrid.hardware.devices import described_gpu
from probegrid.schema import CellSpec, Dtype, PlacementStrategy

if TYPE_CHECKING:
    from probegrid.hardware.cards import Gpu


def on_its_cards(spec: CellSpec, visible: Callable[[], Sequence[Gpu]]) -> CellSpec:
    """The cell with float16 in place of bfloat16 where a card it may use is older than Ampere.

    Args:
        spec: what was composed. A card that its device map names decides wherever the cell is prepared.
        visible: asked for the GPUs of the machine it will run on where no card is named; none if they are not known.

    Raises:
        PlanError: ``device_map.gpu`` is no card, or one that torch has no code for.
    """
    model, device_map = spec.config.model, spec.config.device_map
    named = None if device_map.gpu is None else described_gpu(device_map)
    if model.dtype is not Dtype.bfloat16 or device_map.strategy is PlacementStrategy.cpu:
        return spec
    most = 1 if device_map.strategy is PlacementStrategy.single else device_map.gpus
    gpus = [named] if named is not None else list(visible())[:most]
    if not any(gpu.lacks_bfloat16 for gpu in gpus):
        return spec
    return replace(spec, config=replace(spec.config, model=replace(model, dtype=Dtype.float16)))


def notes_on(gpus: Sequence[Gpu], dtype: Dtype) -> Iterator[str]:
    """What to know of the cards of a plan: that they compute in float16, that torch's usual wheels lack their code."""
    for gpu in dict.fromkeys(gpus):
        if gpu.lacks_bfloat16 and dtype is Dtype.float16:
            yield (
                f"{gpu.name} has no bfloat16 units: computed in float16, 4-bit weights too; the run ends with a "
                "sentence where that overflows"
            )
        if (lacks := missing_code(gpu)) is not None:
            yield lacks
