"""The jobs of one cell: all share its readings, one evaluates it, and any of them may die.

They meet in ``submissions/<k>/cells/<n>/``: when the first began, who is at the cell, who evaluates it, what each took.
Knows names and claims; nothing of what a cell is.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from probegrid.disk import disk_errors
from probegrid.readings.claims import Claims
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sweep_state import CellState, Phase

_EVALUATION = "evaluation"
_PRESENCE = "at-"


def has_ended(state: CellState | None, submission: int) -> bool:
    """Whether a cell ended in a submission, well or badly."""
    return state is not None and state.phase is not Phase.running and state.submission == submission


class CellJobs:
    """One job's part in a cell that others have too; as a context manager, it is at the cell."""

    def __init__(self, folder: SweepFolder, submission: int, cell: int, count: int) -> None:
        """Join them.

        Args:
            folder: of the sweep.
            submission: that the jobs are of.
            cell: its number in the sweep.
            count: jobs that were submitted for it.
        """
        self.count = count
        self._folder, self._submission, self._cell = folder, submission, cell
        self._place = folder.submission_dir(submission) / "cells" / str(cell)
        self._name = secrets.token_hex(4)
        with disk_errors(self._place):
            self._place.mkdir(parents=True, exist_ok=True)
        self.began = self._began()
        self._claims = Claims(self._place)
        self._has_read = False

    def __enter__(self) -> Self:
        self._claims.take(_PRESENCE + self._name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claims.__exit__(kind, error, trace)

    def has_read(self) -> None:
        """Note that this job has read something of the cell, for it may not live to say what it took."""
        if not self._has_read:
            self._has_read = True
            self._leave({})

    def may_evaluate(self, metrics: Mapping[str, float]) -> bool:
        """Whether this job is the one that evaluates the cell; what it took is left for that one where it is not."""
        if self._has_read:
            self._leave(metrics)
        if not self._claims.take(_EVALUATION):
            return False
        return not has_ended(self._folder.read_state(self._cell), self._submission)

    def others_go_on(self) -> bool:
        """Whether another job is at the cell."""
        names = [
            file.name.removeprefix(".").removesuffix(".claim")
            for file in self._place.glob(f".{_PRESENCE}*.claim")
        ]
        return any(name != _PRESENCE + self._name and self._claims.is_held(name) for name in names)

    def is_being_evaluated(self) -> bool:
        """Whether another job has all that is read of the cell in its hands."""
        return self._claims.is_held(_EVALUATION)

    def others(self) -> Sequence[Mapping[str, float]]:
        """What every other job took."""
        files = [file for file in self._place.glob("*.json") if file.stem not in (self._name, "began")]
        return [values for file in files if (values := self._folder.read_json(file, dict)) is not None]

    def _leave(self, metrics: Mapping[str, float]) -> None:
        self._folder.write_json(self._place / f"{self._name}.json", dict(metrics))

    def _began(self) -> float:
        """When the first of them began, in seconds since the epoch: only one can write it."""
        file = self._place / "began.json"
        with Claims(self._place) as claims:
            claims.wait_for("began")
            written = self._folder.read_json(file, float)
            if written is None:
                written = time.time()
                self._folder.write_json(file, written)
        return written
