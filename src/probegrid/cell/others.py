"""The scores that stand beside a probe's own: every judge that the readings of a cell allow, and what each took.

Knows judges and readings' seconds.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.cell.evidence import Asked, evidence_of, reads_of
from probegrid.judges import Judge, Read, all_judges

if TYPE_CHECKING:
    import pyarrow as pa

    from probegrid.cell.cell import Cell
    from probegrid.cell.gather import Gathered
    from probegrid.readings.answers import AnswerReading

JUDGES_FILE = "judges.parquet"
_KNOWN = b"known"
"""Where the file says which judges there were."""


@dataclass(frozen=True)
class Took:
    """What a judge took."""

    judge: Judge
    readings: Mapping[str, float]
    """Seconds of each reading that it needs, those of earlier runs included."""
    own_s: float
    """Seconds of its formula."""


@dataclass(frozen=True)
class Others:
    """What the judges say of the n questions of a cell."""

    columns: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The scores by the judge's name."""
    took: Sequence[Took] = ()

    def of_given(self, reading: AnswerReading) -> Others:
        """The same, without scores of questions whose thought did not end: there is no answer that they could be of."""
        reads = {each.judge.name: each.judge.reads for each in self.took}
        columns = {
            name: [
                score
                if all(one.is_given for one in (found if Read.samples in reads[name] else found[:1]))
                else math.nan
                for score, found in zip(scores, reading.generations, strict=True)
            ]
            for name, scores in self.columns.items()
        }
        return replace(self, columns=columns)

    def table(self) -> pa.Table:
        """``judges.parquet``: a row a judge that the readings allow: what it is, what it reads, what that took.

        ``readings`` are seconds a reading; ``reading_s`` their sum, ``own_s`` those of the formula on all questions.
        The answers' own are the greedy answer's share of what was generated where it takes no samples.
        """
        import pyarrow as pa

        table = pa.table(
            {
                "score": pa.array([each.judge.name for each in self.took], pa.string()),
                "description": pa.array([each.judge.description for each in self.took], pa.string()),
                "readings": pa.array([json.dumps(each.readings) for each in self.took], pa.string()),
                "reading_s": pa.array([sum(each.readings.values()) for each in self.took], pa.float64()),
                "own_s": pa.array([each.own_s for each in self.took], pa.float64()),
            }
        )
        known = {name: one.source or "" for name, one in all_judges().items()}
        return table.replace_schema_metadata({_KNOWN: json.dumps(known).encode()})


def other_scores(cell: Cell, gathered: Gathered, asked: Asked) -> Others:
    """Let every judge score that the readings of a cell allow; nothing is read but what its needs name.

    Args:
        cell: what was read.
        gathered: everything that its needs named.
        asked: who is asked about texts; not let go yet.
    """
    reads, evidence = reads_of(cell, gathered), evidence_of(cell, gathered, asked)
    seconds = _seconds(gathered, asked)
    columns: dict[str, list[float]] = {}
    took: list[Took] = []
    for name, one in all_judges().items():
        if not one.reads <= reads or (one.asks is not None and one.asks not in gathered.asked):
            continue
        started = time.perf_counter()
        columns[name] = [one.score(each) for each in evidence]
        own_s = time.perf_counter() - started
        readings: dict[str, float] = {}
        for read in sorted(one.reads):
            readings |= seconds.get(read, {})
        if Read.samples not in one.reads:
            readings["answers"] = readings.get("answers", seconds[Read.greedy]["answers"])
        if one.asks is not None:
            readings |= {one.asks: gathered.asked[one.asks].read_s}
        took.append(Took(one, readings, own_s))
    return Others(columns, took)


_RELATED = (Read.clusters, Read.relations, Read.alternatives)
_COMPARED = (Read.similarities, Read.relevance, Read.greedy_relevance)


def _seconds(gathered: Gathered, asked: Asked) -> dict[Read, dict[str, float]]:
    """Seconds of the readings behind each need, by the reading's name."""
    answers = gathered.answers
    assert answers is not None
    reading = answers.reading
    steps_of = [[one.steps for one in found] for found in reading.generations]
    share = sum(found[0] for found in steps_of) / max(1, sum(map(sum, steps_of)))
    found: dict[Read, dict[str, float]] = {
        Read.greedy: {"answers": reading.read_s * share},
        Read.samples: {"answers": reading.read_s},
    }
    if gathered.steps is not None:
        found |= {read: {"distributions": gathered.steps.read_s} for read in (Read.steps, Read.attention)}
    if gathered.hidden is not None:
        found[Read.states] = {"activations": gathered.hidden.read_s}
    if answers.options is not None:
        found[Read.options] = {"options": answers.options.reading.read_s}
    relates, compares = asked.relates, asked.compares
    if relates is not None:
        for read in (*_RELATED, *(_COMPARED if compares is None else ())):
            found[read] = {relates.kind: relates.read_s}
    if compares is not None:
        found |= {read: {compares.kind: compares.read_s} for read in _COMPARED}
    return found


def new_judges(folder: Path) -> list[str]:
    """Judges that a recorded cell with answers knew nothing of, or another version of; none where it has no answers."""
    import pyarrow.parquet as pq

    file = folder / JUDGES_FILE
    if not file.exists():
        return []
    known = json.loads((pq.read_schema(file).metadata or {}).get(_KNOWN, b"{}"))
    return [name for name, one in all_judges().items() if known.get(name) != (one.source or "")]
