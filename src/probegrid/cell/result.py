"""A recorded cell, as whoever asked for it gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError, StoreError
from probegrid.tracking import record
from probegrid.tracking.integrity import damage_of, said
from probegrid.tracking.record import Status

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """A recorded cell."""

    key: str
    """Name of its folder, a hash of everything that determines the result."""
    folder: Path
    """``results_dir/<key>``."""
    metrics: Mapping[str, float]
    """Value of each metric; names, units and directions are in ``evaluation.metrics``."""
    notes: Mapping[str, str]
    """By metric name, why its value is not a number or needs care."""
    was_done: bool
    """Whether the cell was recorded before, so that nothing was computed."""
    unsent: str | None = None
    """Why MLflow does not have it; None where it has, or was not to get it."""

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of the cell by name (``scores``, ``answers``), read from its folder.

        Raises:
            StoreError: one is not as it was written, or is missing.
        """
        import pandas as pd

        if damage := [one for one in damage_of(self.folder) if one.file.suffix == ".parquet"]:
            raise StoreError(
                f"{said(damage)}; run the command of its cell again, which makes the cell again."
            )
        return {file.stem: pd.read_parquet(file) for file in sorted(self.folder.glob("*.parquet"))}


def recorded(folder: Path) -> Result:
    """What a folder of results holds.

    Raises:
        ConfigError: it holds no cell that is done.
        StoreError: its record is damaged.
    """
    found = record.read(folder.parent, folder.name)
    if found is None:
        raise ConfigError(
            f"{folder} holds no recorded cell; give a cell's folder, or its key and results_dir."
        )
    if found.status is not Status.done:
        reason = "" if found.error is None else f" ({found.error.type}: {found.error.message})"
        raise ConfigError(f"the cell in {folder} is not done{reason}; run it again.")
    return Result(folder.name, folder, found.metrics, found.notes, was_done=True)
