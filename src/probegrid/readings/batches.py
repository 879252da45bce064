"""The batches of a reading: laid out once, the same when it goes on, and halved where memory does not hold them.

Knows indices and digests of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from probegrid.errors import RunError
from probegrid.readings.store import Entry, key_of

T = TypeVar("T")


def lay_out_once(
    entry: Entry,
    digests: Sequence[str],
    missing: set[int],
    lay_out: Callable[[Sequence[int]], list[list[int]]],
) -> list[list[int]]:
    """The batches of what is missing, as they were laid out when exactly this was first asked for.

    A number may depend in its last digits on the batch it is computed in: a reading that was interrupted goes on with
    the very batches it would have had.

    Args:
        entry: keeps the layout.
        digests: of everything that is asked for, in its order.
        missing: indices of what the entry lacks.
        lay_out: divides indices into batches.

    Returns:
        Indices of each batch, those alone that are missing.
    """
    name = f"batches-{key_of({'asked': list(digests)})}.json"
    index_of = {digest: index for index, digest in enumerate(digests)}
    stored = _as_batches(entry.read_json(name))
    if stored is None:
        batches = lay_out(sorted(missing))
        entry.write_json(name, [[digests[index] for index in batch] for batch in batches])
    else:
        batches = [[index_of[digest] for digest in batch if digest in index_of] for batch in stored]
    batches = [[index for index in batch if index in missing] for batch in batches]
    forgotten = missing.difference(*batches)  # what another reading had, and lost since
    return [batch for batch in [*batches, *(lay_out(sorted(forgotten)) if forgotten else [])] if batch]


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
