"""What runs in a replica: the readings of a pack's cells, in the order it is told them, and nothing of what follows.

Started as ``python -m probegrid.cell.replica``. It is handed the cells as a pickle, then an order a line; it says a
line after each batch: what it took so far. It ends with whoever started it: its standard input is closed then.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from probegrid.cell.pack import Pack
from probegrid.progress import Progress

if TYPE_CHECKING:
    from probegrid.cell.cell import Cell
    from probegrid.readings.session import ModelSession


@dataclass(frozen=True)
class Order:
    """A cell to read along."""

    cell: int
    """Which of the pack."""
    since: float | None
    """What was read before (seconds since the epoch) is read again; None: nothing is."""
    readers: int
    """Processes that share the readings."""
    reads: bool
    """Whether it is read now; else what comes before a weight is read is done ahead."""


def main() -> None:
    """Read what is ordered until standard input ends."""
    for sent_to_all in (signal.SIGINT, signal.SIGUSR2):  # whoever started this one takes them for both
        signal.signal(sent_to_all, signal.SIG_IGN)
    told = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else is printed is no answer
    specs = pickle.load(told)  # noqa: S301  # by the process that started this one
    orders: queue.Queue[Order] = queue.Queue()
    threading.Thread(target=_listen, args=(told, orders), daemon=True).start()
    with Pack(specs, is_replica=True) as pack:
        while True:
            order = orders.get()
            cell = pack.prepare(specs[order.cell])
            if order.reads:
                _read(cell, order, pack, answers)
            else:
                _get_ready()


def _listen(told: IO[bytes], orders: queue.Queue[Order]) -> None:
    for line in told:
        orders.put(Order(**json.loads(line)))
    os._exit(0)  # a claim that is held passes on, for its holder is dead


def _get_ready() -> None:
    """Import what reading takes; nothing is put on a device."""
    import probegrid.cell.answer_probe
    import probegrid.cell.gather
    import probegrid.inference.engine
    import probegrid.readings.session  # noqa: F401


def _read(cell: Cell, order: Order, pack: Pack, answers: IO[str]) -> None:
    from probegrid.cell.answer_probe import score_answers
    from probegrid.cell.gather import gather
    from probegrid.probes import AnswerProbe
    from probegrid.readings.session import ModelSession, Sharing

    assert cell.model is not None
    progress = _Telling()
    checkpoint, tokenizer, sharing = cell.model.checkpoint, cell.model.tokenizer, Sharing(order.readers)
    session = ModelSession(
        cell.config, checkpoint, tokenizer, pack.plan(cell), pack.pool, progress, order.since, sharing
    )
    progress.tell_of(session, order.cell, answers)
    gathered = gather(cell, session)
    if isinstance(cell.probe, AnswerProbe) and (cell.needs.classifier or cell.cross_encoder):
        score_answers(cell, cell.probe, gathered, session)  # for the pairs of texts it asks about


class _Telling(Progress):
    """Says after each batch what this process took so far."""

    def tell_of(self, session: ModelSession, cell: int, answers: IO[str]) -> None:
        """Begin."""
        self._session, self._cell, self._answers = session, cell, answers

    def start(self, name: str, *, total: int, done: int = 0) -> None:
        """Nothing is shown here."""

    def advance(self, examples: int, *, tokens: int = 0) -> None:
        """Say what was taken so far, where something was done here."""
        if tokens:
            said = {"cell": self._cell, "metrics": self._session.metrics()}
            print(json.dumps(said), file=self._answers, flush=True)


if __name__ == "__main__":
    main()
