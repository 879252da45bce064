"""What stands in a cell's name: every override that tells it apart, and none that does not."""

from __future__ import annotations

import pytest

from probegrid.compose import compose_cell
from probegrid.sweep.grid import ComposedCell, cell_names, told_apart
from probegrid.tracking.naming import has_effect, key_of_override


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ((), "tiny-none-facts-gnll"),
        (("quantization=nf4", "device_map=auto"), "tiny-nf4-facts-gnll"),
        (("device_map=cpu",), "tiny-none-facts-gnll device_map=cpu"),
        (("seed=1", "device_map=single", "prompt.num_few_shot=0"),
         "tiny-none-facts-gnll device_map=single seed=1 prompt.num_few_shot=0"),
        (("device_map.overhead_gb=2",), "tiny-none-facts-gnll device_map.overhead_gb=2"),
        (("tracking=none", "results_dir=r", "store_dir=s", "debug=true", "decoding.batch_size=2", "report.seed=3",
          "hydra.verbose=false", "action=plan"), "tiny-none-facts-gnll"),
    ],
)  # fmt: skip
def test_the_name_of_one_cell(overrides: tuple[str, ...], name: str) -> None:
    assert compose_cell(overrides).name == name


def test_a_device_map_is_named_once() -> None:
    spec = compose_cell(["device_map=cpu", "seed=1"])
    assert spec.name == "tiny-none-facts-gnll device_map=cpu seed=1"


def test_cells_of_a_grid_are_named_by_what_they_do_not_share() -> None:
    """The device map among it; a sweep goes on by all that was typed."""
    grid = [("seed=3", f"device_map={device_map}") for device_map in ("auto", "cpu")]
    cells = [ComposedCell(overrides, compose_cell(overrides)) for overrides in grid]
    assert cell_names(cells) == [
        "tiny-none-facts-gnll device_map=auto",
        "tiny-none-facts-gnll device_map=cpu",
    ]
    told = told_apart(cells)
    assert [cell.spec and cell.spec.name for cell in told] == cell_names(cells)
    assert [cell.overrides for cell in told] == grid


def test_what_has_effect() -> None:
    assert has_effect("device_map.gpus")
    assert has_effect("seed")
    assert not has_effect("tracking.uri")
    assert [key_of_override(override) for override in ("seed=1", "++a.b=2", "~c", "+d=[1,2]")] == [
        "seed",
        "a.b",
        "c",
        "d",
    ]
