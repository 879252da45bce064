"""Run grids of language model x quantization x device map x dataset x probe; compare the numbers.

>>> import probegrid
>>> result = probegrid.run(["model=tiny", "dataset=facts"])  # doctest: +SKIP
>>> result.metrics["auroc"]  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probegrid.cell.run import Result

__version__ = "0.1.0"
__all__ = ["__version__", "run"]


def run(overrides: Sequence[str] = ()) -> Result:
    """Run one cell and return its result, as ``probegrid <overrides>`` would.

    Args:
        overrides: what would be typed on the command line, ``["model=tiny", "dataset=facts"]``.

    Returns:
        The metrics and tables of the cell, also when it was already done and nothing was computed.

    Raises:
        probegrid.errors.UserError: the overrides ask for something that cannot be.
        probegrid.errors.RunError: something outside the input went wrong.
    """
    from probegrid.cell.run import run_cell
    from probegrid.compose import compose_cell

    return run_cell(compose_cell(overrides))
