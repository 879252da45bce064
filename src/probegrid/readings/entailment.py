"""The reading *entailments*: which texts entail which, each pair asked once and kept.

Knows pairs of texts, batches and the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.models.classifier import Classifier, Pair
from probegrid.readings.batches import halving, lay_out
from probegrid.readings.store import Entry

if TYPE_CHECKING:
    from probegrid.models.checkpoint import Checkpoint
    from probegrid.progress import Progress

FORMAT = 2
"""Raised whenever the same description would give other answers than before."""

_COLUMNS = ("first", "second", "entails", "seconds", "cut", "read_at")

BATCH_TOKENS = {"cuda": 8192, "cpu": 2048}
"""Most tokens of a batch, padding included: enough to fill the device, few enough to bound its memory. A batch is also
what a killed run has to do again."""


class Entailments:
    """Answers whether the first text of a pair entails the second; the classifier is loaded when it is first needed.

    Attributes:
        read_s: seconds of classification, those of earlier runs included.
        found_s: the seconds of it that were spent before.
        notes: what the user should know of the answers.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        load: Callable[[], Classifier],
        *,
        asked_for: str,
        store_dir: str,
        progress: Progress,
        since: float | None = None,
    ) -> None:
        """Open the store's entry.

        Args:
            checkpoint: of the classifier.
            load: loads it.
            asked_for: what the texts are of, by the key of the store's entry: its pairs are one entry here.
            store_dir: the store's folder.
            progress: told how many pairs are done.
            since: what was answered before (seconds since the epoch) is asked again; None: nothing is.

        Raises:
            StoreError: a damaged entry.
        """
        description = {"format": FORMAT, "classifier": checkpoint.fingerprint, "reading": asked_for}
        self._entry = Entry(store_dir, "entailments", description)
        self._load, self._progress = load, progress
        self._classifier: Classifier | None = None
        self._known: dict[Pair, bool] = {}
        self._n_cut = 0
        self.read_s = 0.0
        rows = [row for table in self._entry.read_parts(_COLUMNS) for row in table.to_pylist()]
        newest: dict[Pair, dict[str, Any]] = {}
        for row in sorted(rows, key=lambda row: float(row["read_at"])):
            if since is None or row["read_at"] >= since:
                newest[row["first"], row["second"]] = row
        for pair, row in newest.items():
            self._known[pair] = row["entails"]
            self.read_s += row["seconds"]
            self._n_cut += row["cut"]
        self.found_s = self.read_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._classifier is not None:
            self._classifier.release()
            self._classifier = None
            self._entry.merge(_COLUMNS)

    @property
    def notes(self) -> list[str]:
        """What the user should know of the answers."""
        if not self._n_cut:
            return []
        return [
            f"{self._n_cut} of {len(self._known)} pairs are longer than the entailment model takes and were cut"
        ]

    def __call__(self, pairs: Sequence[Pair]) -> list[bool]:
        """Answer pairs, those the store does not hold by the classifier.

        Raises:
            StoreError: a full disk.
            RunError: one pair alone does not fit in memory.
        """
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        if missing:
            self._classifier = self._classifier or self._load()
            self._ask(missing, self._classifier)
        return [self._known[pair] for pair in pairs]

    def _ask(self, pairs: Sequence[Pair], classifier: Classifier) -> None:
        lengths = classifier.lengths(pairs)
        most = BATCH_TOKENS[classifier.model.device.type]
        self._progress.start("entailments", total=len(pairs))

        def attempt(part: Sequence[int]) -> tuple[list[bool], float] | None:
            started = time.perf_counter()
            found = or_none_if_out_of_memory(lambda: classifier.entails([pairs[index] for index in part]))
            return None if found is None else (found, time.perf_counter() - started)

        for part, (entails, seconds) in halving(
            lay_out(lengths, most), attempt, lambda index: _too_large(pairs[index])
        ):
            cut = [lengths[index] > (classifier.longest or lengths[index]) for index in part]
            self._keep([pairs[index] for index in part], entails, seconds, cut)
            self._progress.advance(len(part), tokens=sum(lengths[index] for index in part))

    def _keep(
        self, pairs: Sequence[Pair], entails: Sequence[bool], seconds: float, cut: Sequence[bool]
    ) -> None:
        import pyarrow as pa

        columns = {
            "first": pa.array([first for first, _ in pairs], pa.string()),
            "second": pa.array([second for _, second in pairs], pa.string()),
            "entails": pa.array(entails, pa.bool_()),
            "seconds": pa.array([seconds / len(pairs)] * len(pairs), pa.float64()),
            "cut": pa.array(cut, pa.bool_()),
            "read_at": pa.array([time.time()] * len(pairs), pa.float64()),
        }
        self._entry.write_part(pa.table(columns))
        self._known |= dict(zip(pairs, entails, strict=True))
        self.read_s += seconds
        self._n_cut += sum(cut)


def _too_large(pair: Pair) -> str:
    return (
        f"the pair of texts beginning {pair[0][:60]!r} alone does not fit in memory beside the entailment model; use "
        "probe.entailment=exact or a smaller classifier."
    )
