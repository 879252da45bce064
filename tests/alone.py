"""What cells say when nothing disturbs them: each run alone, in this process, which has imported torch already."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from sweep_helpers import Grid

import probegrid


def numbers_alone(
    folder: Path, checkpoint: Path, overrides: Sequence[str], *, samples: Iterable[int], seeds: Iterable[int]
) -> dict[tuple[int, int], dict[str, str]]:
    """The numbers of a checkpoint's cells by their questions and seed, as ``Grid.numbers_by_draw`` has a sweep's."""
    model = ("model=custom", f"model.path={checkpoint}", "model.dtype=float32", "tracking=none")
    places = [f"{name}_dir={folder / name}" for name in ("results", "store")]
    for number, seed in itertools.product(samples, seeds):
        draw = (f"dataset.num_samples={number}", f"seed={seed}")
        probegrid.run([*model, *places, *overrides, *draw])
    return Grid(folder, {}).numbers_by_draw()
