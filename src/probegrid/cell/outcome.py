"""What the middle of a cell hands to its end: numbers, tables and pictures, ready to be recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from probegrid.evaluation.summary import NO_INTERVAL

if TYPE_CHECKING:
    import pyarrow as pa

_LOW = "_ci_low"


@dataclass(frozen=True)
class Outcome:
    """Everything a cell found out."""

    metrics: Mapping[str, float]
    """Value of each metric; names, units and directions are in ``evaluation.metrics``."""
    notes: Mapping[str, str]
    """By metric name, why its value is not a number or needs care."""
    tables: Mapping[str, pa.Table]
    """By name, ``scores`` always among them; each becomes ``<name>.parquet``."""
    figures: Mapping[str, bytes]
    """Images by the names of their files, ``roc.png``."""
    steps: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """Metrics with a course, as (step, value) pairs."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Anything else to keep, by relative path."""
    engine: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By reading, which way the model was read, see ``tracking.record``."""
    readers: int = 1
    """Processes that shared the readings: seconds and memory are of all together, rates of each."""


def with_reasons(outcome: Outcome) -> Outcome:
    """The same, with a note on every number whose interval is undefined and that no note is on yet."""
    lacking = [
        name.removesuffix(_LOW)
        for name, value in outcome.metrics.items()
        if name.endswith(_LOW) and math.isnan(value)
    ]
    found = {name: NO_INTERVAL for name in lacking if not math.isnan(outcome.metrics[name])}
    return replace(outcome, notes={**found, **outcome.notes}) if found else outcome
