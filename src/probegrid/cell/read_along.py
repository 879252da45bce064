"""Who reads a cell along with this process: replicas on this machine's other GPUs, and jobs of the same cell elsewhere.

Knows when replicas are called, and how what all of them took becomes the numbers of one cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from probegrid.cell.replicas import gpu_groups, here, together
from probegrid.hardware.machine import visible_cards

_READERS = "readers"
"""Processes that the metrics are of, among them on their way from job to job."""

if TYPE_CHECKING:
    from probegrid.cell.cell import Cell
    from probegrid.cell.pack import Pack
    from probegrid.planning.plan import Plan
    from probegrid.progress import Progress
    from probegrid.readings.session import Sharing


class Jobs(Protocol):
    """The jobs of a cell."""

    count: int
    """Jobs that were submitted for it."""
    began: float
    """When the first of them began it, in seconds since the epoch."""

    def may_evaluate(self, metrics: Mapping[str, float]) -> bool:
        """Whether this job is the one that evaluates the cell; what it took is left for that one where it is not."""

    def others_go_on(self) -> bool:
        """Whether another job is at the cell."""

    def others(self) -> Sequence[Mapping[str, float]]:
        """What every other job took that has read something; nothing of one that died."""


class ReadAlong:
    """Those who read one cell along."""

    def __init__(
        self, cell: Cell, plan: Plan | None, pack: Pack, since: float | None, jobs: Jobs | None
    ) -> None:
        """Call nobody yet.

        Args:
            cell: what is read.
            plan: says how many copies of the model there are to be; None: this process's own alone.
            pack: of the cell, whose replicas they are.
            since: what the store had before (seconds since the epoch) is read again; None: nothing is.
            jobs: of the same cell; None: this one is alone.
        """
        self.since = since
        self._cell, self._pack, self._plan, self._jobs = cell, pack, plan, jobs
        self._number = pack.number(cell.spec)
        self._copies = 1 if plan is None else plan.replicas
        self._indices: list[list[int]] = []
        """The GPUs of each replica, as this process sees them."""
        self._cards: tuple[str, ...] = ()
        """Names of all GPUs."""
        self._is_called = False

    def sharing(self, progress: Progress) -> Sharing:
        """What a session is told of them."""
        from probegrid.readings.session import Sharing

        if self._plan is None and self._cell.config.device_map.replicas not in ("auto", "1"):
            progress.say("one copy reads: without a plan nothing says where others have room")
        jobs = 1 if self._jobs is None else self._jobs.count
        began = None if self._jobs is None else self._jobs.began
        return Sharing(self._copies * jobs, began, self._call)

    def may_evaluate(self, metrics: Mapping[str, float]) -> bool:
        """Whether this process evaluates the cell, now that all is read."""
        return self._jobs is None or self._jobs.may_evaluate(self._with_replicas(metrics))

    def took(self, own: Mapping[str, float]) -> tuple[dict[str, float], int]:
        """What all took together, and how many they were."""
        others = [] if self._jobs is None else self._jobs.others()
        found = together(self._with_replicas(own), [{_READERS: 1.0, **each} for each in others])
        return found, int(found.pop(_READERS))

    def _with_replicas(self, own: Mapping[str, float]) -> dict[str, float]:
        return together({**own, _READERS: 1.0}, [{**each, _READERS: 1.0} for each in self._of_replicas()])

    def _of_replicas(self) -> list[dict[str, float]]:
        if not self._is_called:
            return []
        return [
            here(metrics, self._indices[number])
            for number, metrics in self._pack.replicas.metrics(self._number).items()
        ]

    def get_ready(self) -> None:
        """Start the replicas, for something may be missing; if nothing is, they end with the pack."""
        if self._copies > 1 and self._plan is not None:
            used = self._plan.placement.gpus
            # not named by torch, whose import takes as long as a replica's
            self._cards = visible_cards() if used else ()
            self._indices = gpu_groups(used, self._copies, len(self._cards))
            self._tell(reads=False)

    def _call(self) -> None:
        """Something is missing: let the replicas read along."""
        if self._indices and not self._is_called:
            self._is_called = True
            self._tell(reads=True)

    def _tell(self, *, reads: bool) -> None:
        order = {
            "cell": self._number,
            "since": self.since,
            "readers": self._copies * (1 if self._jobs is None else self._jobs.count),
            "reads": reads,
        }
        self._pack.replicas.tell(order, [[self._cards[gpu] for gpu in group] for group in self._indices])
