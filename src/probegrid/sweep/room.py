"""Which jobs of this machine run side by side: each with cards of its own, within its memory and the user's limit.

Plain bookkeeping: knows numbers and names of cards, nothing of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probegrid.tracking.sweep_state import Job


@dataclass(frozen=True)
class _Taken:
    """What a job that runs has."""

    cards: tuple[str, ...]
    memory_gb: float
    is_of_cpu: bool


class Room:
    """What this machine has left."""

    def __init__(self, cards: Sequence[str], memory_gb: float, most: int | None) -> None:
        """Begin with all of it free.

        Args:
            cards: names of the GPUs, in order.
            memory_gb: of the machine.
            most: jobs that may run at once; None: as many as there are cards for, and one on the CPU.
        """
        self._cards, self._memory_gb, self._most = tuple(cards), memory_gb, most
        self._taken: dict[int, _Taken] = {}

    def take(self, number: int, waiting: Sequence[Job]) -> tuple[str, ...] | None:
        """Give a job what it needs, and of the free cards as many again as no job that waits needs.

        Args:
            number: by which it is let go.
            waiting: the job, and those that wait behind it.

        Returns:
            Its cards; None where it has to wait.
        """
        job = waiting[0]
        memory_gb = job.resources.mem_gb or 0.0
        if self._most is not None and len(self._taken) >= self._most:
            return None
        if (
            self._taken
            and memory_gb + sum(taken.memory_gb for taken in self._taken.values()) > self._memory_gb
        ):
            return None
        needed = self._needed(job)
        if not needed:
            if self._most is None and any(taken.is_of_cpu for taken in self._taken.values()):
                return None
            self._taken[number] = _Taken((), memory_gb, is_of_cpu=True)
            return ()
        free = self._free()
        if len(free) < needed:
            return None
        sharing = sum(self._needed(other) > 0 for other in waiting)
        copies = max(1, len(free) // sharing // needed) if job.takes_more else 1
        cards = free[: copies * needed]
        self._taken[number] = _Taken(cards, memory_gb, is_of_cpu=False)
        return cards

    def let_go(self, number: int) -> None:
        """Take back what a job had."""
        del self._taken[number]

    @property
    def has_cards(self) -> bool:
        """Whether there are cards to give."""
        return bool(self._cards)

    def is_of_cpu(self, job: Job) -> bool:
        """Whether a job needs no card."""
        return not self._needed(job)

    def _needed(self, job: Job) -> int:
        return len(self._cards) if job.cards is None else min(job.cards, len(self._cards))

    def _free(self) -> tuple[str, ...]:
        taken = {card for each in self._taken.values() for card in each.cards}
        return tuple(card for card in self._cards if card not in taken)
