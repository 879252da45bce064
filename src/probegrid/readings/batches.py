"""The batches of a reading: laid out once, the same when it goes on, and halved where memory does not hold them.

Several processes may share a reading: each claims batches in turn until all are done by somebody. Knows indices and
digests of what is read.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from probegrid.errors import RunError
from probegrid.readings.claims import POLL_S, Claims
from probegrid.readings.store import Entry, key_of

if TYPE_CHECKING:
    from probegrid.progress import Progress

T = TypeVar("T")

MANY = 16
"""Batches for each reader that come out even enough whatever their number is."""


@dataclass(frozen=True)
class Batch:
    """What is read together."""

    name: str
    """By what was laid out: the same for all who share the reading, whatever of it is there already."""
    indices: tuple[int, ...]
    """Of what is missing of it."""


def lay_out_once(
    entry: Entry,
    digests: Sequence[str],
    missing: set[int],
    lay_out: Callable[[Sequence[int]], list[list[int]]],
    *,
    readers: int = 1,
    way: str | None = None,
) -> list[Batch]:
    """The batches of what is missing, as they were laid out when exactly this was first asked for.

    A number may depend in its last digits on the batch it is computed in: a reading that was interrupted goes on with
    the very batches it would have had. One of those who share a reading lays it out for all.

    Args:
        entry: keeps the layout.
        digests: of everything that is asked for, in its order.
        missing: indices of what the entry lacks.
        lay_out: divides indices into batches.
        readers: processes that share the reading, each of which is to have its part of the batches.
        way: in which such batches are read, if no other could; None: any can.

    Returns:
        The batches, of each the indices that are missing.
    """
    asked = {"asked": list(digests)} | ({} if way is None else {"way": way})
    name = f"batches-{key_of(asked)}.json"
    index_of = {digest: index for index, digest in enumerate(digests)}
    stored = _as_batches(entry.read_json(name))
    if stored is None:
        batches = evened_out(lay_out(sorted(missing)), readers)
        with Claims(entry.folder) as claims:
            claims.wait_for("layout")
            stored = _as_batches(entry.read_json(name))  # whoever was first decides
            if stored is None:
                stored = [[digests[index] for index in batch] for batch in batches]
                entry.write_json(name, stored)
    found = [
        batch_of(digests, [index_of[digest] for digest in batch if digest in index_of], missing)
        for batch in stored
    ]
    forgotten = missing.difference(*(batch.indices for batch in found))  # what another had, and lost since
    again = evened_out(lay_out(sorted(forgotten)), readers) if forgotten else []
    return [
        batch for batch in [*found, *(batch_of(digests, each, missing) for each in again)] if batch.indices
    ]


def batch_of(digests: Sequence[str], indices: Sequence[int], missing: set[int]) -> Batch:
    """What is missing of some examples, under the name of all of them."""
    name = key_of({"batch": [digests[index] for index in indices]})
    return Batch(name, tuple(index for index in indices if index in missing))


def evened_out(batches: Sequence[Sequence[int]], readers: int) -> list[list[int]]:
    """Batches of which each reader can have as many as the others; as they are where there are many.

    >>> evened_out([[0, 1, 2, 3, 4, 5]], 2)
    [[0, 1, 2], [3, 4, 5]]
    """
    if readers == 1 or not batches or len(batches) % readers == 0 or len(batches) >= MANY * readers:
        return [list(batch) for batch in batches]
    rounds = math.ceil(len(batches) / readers)
    most = max(1, math.ceil(sum(map(len, batches)) / (rounds * readers)))
    return [part for batch in batches for part in _divided(list(batch), math.ceil(len(batch) / most))]


def _divided(batch: list[int], parts: int) -> list[list[int]]:
    """Consecutive parts that differ by at most one in length."""
    edges = [len(batch) * part // parts for part in range(parts + 1)]
    return [batch[start:end] for start, end in itertools.pairwise(edges)]


class Look:
    """What of a reading by prompts the store holds by now, of which each part is looked at once."""

    def __init__(self, entry: Entry, index_of: Mapping[str, int], since: float | None) -> None:
        """Begin with nothing seen.

        Args:
            entry: whose rows are known by ``prompt``.
            index_of: index of each digest that is asked for.
            since: what was read before (seconds since the epoch) does not count; None: all does.
        """
        self._entry, self._index_of, self._since = entry, index_of, since
        self._seen: set[str] = set()
        self._found: set[int] = set()

    def __call__(self) -> set[int]:
        """Indices of what is there."""
        for row in self._entry.look(("prompt", "read_at"), self._seen):
            if row["prompt"] in self._index_of and (self._since is None or row["read_at"] >= self._since):
                self._found.add(self._index_of[row["prompt"]])
        return self._found


def work_through(
    entry: Entry,
    batches: Iterable[Batch],
    do: Callable[[Sequence[int]], None],
    look: Callable[[], set[int]],
    progress: Progress,
) -> None:
    """Do every batch that nobody else has done or is at, and wait for the others.

    Args:
        entry: where they are claimed.
        batches: what is missing.
        do: reads some examples and stores them.
        look: indices of what the store holds by now; a batch is looked for once it is claimed, for another may have
            done it the moment before.
        progress: told of what others did.
    """
    waiting = list(batches)
    names = [batch.name for batch in waiting]
    wanted = {index for batch in waiting for index in batch.indices}
    done: set[int] = set()

    def look_again() -> None:
        found = (look() & wanted) - done
        if found:
            progress.advance(len(found))
            done.update(found)

    with Claims(entry.folder) as claims:
        while waiting:
            held_by_others = []
            for batch in waiting:
                if done.issuperset(batch.indices):
                    continue
                if not claims.take(batch.name):
                    held_by_others.append(batch)
                    continue
                look_again()
                left = [index for index in batch.indices if index not in done]
                if left:
                    do(left)
                    done.update(left)
                claims.release(batch.name)
            if len(held_by_others) == len(waiting):
                time.sleep(POLL_S)
            look_again()
            waiting = [batch for batch in held_by_others if not done.issuperset(batch.indices)]
        claims.clear(names)


def _as_batches(stored: object) -> list[list[str]] | None:
    """What a file of batches holds; None where it is none."""
    if isinstance(stored, list) and all(isinstance(batch, list) for batch in stored):
        return [[str(digest) for digest in batch] for batch in stored]
    return None


def halving(
    batches: Iterable[Sequence[int]],
    attempt: Callable[[Sequence[int]], T | None],
    too_large: Callable[[int], str],
) -> Iterator[tuple[Sequence[int], T]]:
    """Do every batch, in parts where memory runs out.

    Args:
        batches: indices of the examples of each; an empty batch is passed over.
        attempt: does some examples; None if memory ran out.
        too_large: what to say of an example that does not fit alone.

    Yields:
        The examples that were done together, and what came of it.

    Raises:
        RunError: one example alone does not fit in memory.
    """
    for batch in batches:
        pending = [batch]
        while pending:
            part = pending.pop(0)
            if not part:
                continue
            result = attempt(part)
            if result is not None:
                yield part, result
            elif len(part) == 1:
                raise RunError(too_large(part[0]))
            else:
                pending[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]


def lay_out(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Divide passages into batches by length, longest first.

    Args:
        lengths: tokens of each passage.
        most: tokens of a batch, padding included; a passage longer than that is a batch alone.

    Returns:
        Indices of each batch.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= most:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
