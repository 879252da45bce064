"""Batches that memory may not hold: halved until they fit.

Knows indices of examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from probegrid.errors import RunError

T = TypeVar("T")


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
