"""What a second model says of pairs of texts, each pair asked once and kept.

Knows pairs of texts, batches and the store; what is said of a pair is a few numbers.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.models.classifier import Classifier, Pair
from probegrid.readings.batches import batch_of, evened_out, halving, lay_out, work_through
from probegrid.readings.store import Entry

if TYPE_CHECKING:
    from probegrid.models.checkpoint import Checkpoint
    from probegrid.progress import Progress

FORMAT = 3
"""Raised whenever the same description would give other numbers than before."""

_COLUMNS = ("first", "second", "said", "seconds", "cut", "read_at")

BATCH_TOKENS = {"cuda": 8192, "cpu": 2048}
"""Most tokens of a batch, padding included: enough to fill the device, few enough to bound its memory. A batch is also
what a killed run has to do again."""


@dataclass(frozen=True)
class _Known:
    """What is known of a pair."""

    said: tuple[float, ...]
    seconds: float
    """Its share of what its batch took."""
    is_cut: bool
    """Whether it is longer than the classifier takes."""
    read_at: float


class PairReading(ABC):
    """Asks a classifier about pairs; it is loaded when it is first needed."""

    kind: ClassVar[str]
    """Name of the reading, in the store too."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        load: Callable[[], Classifier],
        *,
        asked_for: str,
        store_dir: str,
        progress: Progress,
        since: float | None = None,
        readers: int = 1,
        began: float | None = None,
    ) -> None:
        """Open the store's entry.

        Args:
            checkpoint: of the classifier.
            load: loads it.
            asked_for: what the texts are of, by the key of the store's entry: its pairs are one entry here.
            store_dir: the store's folder.
            progress: told how many pairs are done.
            since: what was answered before (seconds since the epoch) is asked again; None: nothing is.
            readers: processes that share the reading: the batches are laid out for so many.
            began: when those who share it began (seconds since the epoch): what is older was spent before. None: now.

        Raises:
            StoreError: a damaged entry.
        """
        description = {"format": FORMAT, "classifier": checkpoint.fingerprint, "reading": asked_for}
        self._entry = Entry(store_dir, self.kind, description)
        self._load, self._progress = load, progress
        self._since, self._readers, self._began = since, readers, began or time.time()
        self._classifier: Classifier | None = None
        self._known: dict[Pair, _Known] = {}
        self._seen: set[str] = set()
        self._look()

    @property
    def read_s(self) -> float:
        """Seconds of classification, those of earlier runs included."""
        return math.fsum(known.seconds for known in self._known.values())

    @property
    def found_s(self) -> float:
        """The seconds of it that were spent before."""
        return math.fsum(known.seconds for known in self._known.values() if known.read_at < self._began)

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
        n_cut = sum(known.is_cut for known in self._known.values())
        asked = self.kind.removesuffix("s")
        if not n_cut:
            return []
        return [f"{n_cut} of {len(self._known)} pairs are longer than the {asked} model takes and were cut"]

    @abstractmethod
    def say(self, classifier: Classifier, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """What the classifier says of each pair of a batch."""

    def said(self, pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
        """What is said of pairs, those the store does not hold by the classifier.

        Raises:
            StoreError: a full disk.
            RunError: one pair alone does not fit in memory.
        """
        asked = list(dict.fromkeys(pairs))
        if any(pair not in self._known for pair in asked):
            self._classifier = self._classifier or self._load()
            self._ask(asked, self._classifier)
        return [self._known[pair].said for pair in pairs]

    def _look(self) -> None:
        """Learn what parts of the store say that were not looked at yet."""
        for row in self._entry.look(_COLUMNS, self._seen):
            pair, read_at = (row["first"], row["second"]), float(row["read_at"])
            is_newer = pair not in self._known or self._known[pair].read_at < read_at
            if is_newer and (self._since is None or read_at >= self._since):
                self._known[pair] = _Known(tuple(row["said"]), row["seconds"], row["cut"], read_at)

    def _ask(self, pairs: Sequence[Pair], classifier: Classifier) -> None:
        """Answer what is missing of some pairs; all of them make the batches, so that all who ask have the same."""
        lengths = classifier.lengths(pairs)
        most = BATCH_TOKENS[classifier.model.device.type]
        names = [f"{first}\0{second}" for first, second in pairs]
        missing = {index for index, pair in enumerate(pairs) if pair not in self._known}
        laid_out = evened_out(lay_out(lengths, most), self._readers)
        batches = [found for each in laid_out if (found := batch_of(names, each, missing)).indices]
        self._progress.start(self.kind, total=len(missing))

        def attempt(part: Sequence[int]) -> tuple[list[tuple[float, ...]], float] | None:
            started = time.perf_counter()
            found = or_none_if_out_of_memory(lambda: self.say(classifier, [pairs[index] for index in part]))
            return None if found is None else (found, time.perf_counter() - started)

        def do(batch: Sequence[int]) -> None:
            for part, (said, seconds) in halving([batch], attempt, lambda index: _too_large(pairs[index])):
                cut = [lengths[index] > (classifier.longest or lengths[index]) for index in part]
                self._keep([pairs[index] for index in part], said, seconds, cut)
                self._progress.advance(len(part), tokens=sum(lengths[index] for index in part))

        def look() -> set[int]:
            self._look()
            return {index for index in missing if pairs[index] in self._known}

        work_through(self._entry, batches, do, look, self._progress)
        self._look()

    def _keep(
        self, pairs: Sequence[Pair], said: Sequence[tuple[float, ...]], seconds: float, cut: Sequence[bool]
    ) -> None:
        import pyarrow as pa

        columns = {
            "first": pa.array([first for first, _ in pairs], pa.string()),
            "second": pa.array([second for _, second in pairs], pa.string()),
            "said": pa.array(said, pa.list_(pa.float32())),
            "seconds": pa.array([seconds / len(pairs)] * len(pairs), pa.float64()),
            "cut": pa.array(cut, pa.bool_()),
            "read_at": pa.array([time.time()] * len(pairs), pa.float64()),
        }
        self._entry.write_part(pa.table(columns))


def _too_large(pair: Pair) -> str:
    return (
        f"the pair of texts beginning {pair[0][:60]!r} alone does not fit in memory beside the model that is asked "
        "about it; use probe.entailment=exact, probe.similarity=rouge_l or a smaller classifier."
    )
