"""A recorded cell as a report sees it: what was chosen, what was found, its examples when they are asked for.

Knows the files of a cell's folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probegrid.errors import StoreError
from probegrid.evaluation.checks import BoolArray, FloatArray
from probegrid.evaluation.intervals import Estimate
from probegrid.evaluation.metrics import is_of_probe
from probegrid.evaluation.ranking import auroc
from probegrid.tracking import record
from probegrid.tracking.integrity import sound
from probegrid.tracking.mlflow_content import flatten
from probegrid.tracking.record import CellRecord, Status

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

GROUPS = ("model", "quantization", "device_map", "dataset", "probe")
"""The groups whose choices are recorded by name."""

_KEY_LENGTH = 8
_OF_ANSWERS = ("example_id", "question", "answer", "references", "correct", "extracted")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class RecordedCell:
    """A cell's record, its flattened config, and its tables, read when they are asked for."""

    folder: Path
    record: CellRecord
    config: Mapping[str, str]
    """Every value of the resolved config by its dotted key."""

    @property
    def is_done(self) -> bool:
        """Whether it ended well."""
        return self.record.status is Status.done

    @property
    def is_trained(self) -> bool:
        """Whether its probe was trained, so that its accuracy is that of the probe's calls and not of answers."""
        return is_of_probe(self.record.metrics)

    @property
    def leakage(self) -> str | None:
        """What makes its numbers too good, if anything does."""
        return self.record.notes.get("leakage")

    def value(self, name: str) -> str:
        """The choice of a group, the value of a key, or the cell's own ``key``, shortened; ``-`` for none."""
        if name == "key":
            return self.record.cell[:_KEY_LENGTH]
        return self.record.choices.get(name) or self.config.get(name, "-")

    def metric(self, name: str) -> float | None:
        """The value of a metric; None where it was not measured."""
        return self.record.metrics.get(name)

    def estimate(self, name: str) -> Estimate | None:
        """A metric with its interval (`nan` where it has none); None where it was not measured."""
        value = self.metric(name)
        if value is None:
            return None
        low, high = (self.record.metrics.get(f"{name}_ci_{end}", float("nan")) for end in ("low", "high"))
        return Estimate(value, low, high, n_resamples_valid=0)

    @property
    def rule(self) -> str:
        """By what its answers were judged: the rule's name, threshold and language; ``-`` where it is not known."""
        named = self.value("dataset.rule")
        return self.record.notes.get("rule") or ("-" if named == "null" else named)

    @property
    def parameters(self) -> float | None:
        """Parameters of the whole model; None where the cell had no plan."""
        return self.record.plan.get("parameters")

    @property
    def gpus(self) -> int:
        """GPUs it ran on by its plan; 0 on a CPU."""
        return int(self.record.plan.get("gpus", 0))

    @property
    def device_hours(self) -> float | None:
        """Measured hours of loading and reading, times the GPUs (a CPU counts as one device); None for no reading."""
        load_s, read_s = self.metric("load_s"), self.metric("read_s")
        if load_s is None or read_s is None:
            return None
        return (load_s + read_s) * max(1, self.gpus) / 3600

    @property
    def reading_hours(self) -> float | None:
        """Device hours of its reading, whichever cell made it; without loading, which one cell of a pack pays for."""
        read_s = self.metric("read_s")
        return None if read_s is None else read_s * max(1, self.gpus) / 3600

    @cached_property
    def _all_scores(self) -> pd.DataFrame:
        read: pd.DataFrame = _table(self.folder / "scores.parquet").to_pandas()
        return read.set_index("example_id")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The test examples of ``scores.parquet`` that have a score, by example_id: group, label, score."""
        scores = self._all_scores
        kept = ((scores["split"] == "test") & scores["score"].notna()).to_numpy()
        return scores if kept.all() else scores[kept]

    @cached_property
    def read_ids(self) -> frozenset[str]:
        """Ids of all examples that were read, those of a probe's training too."""
        return frozenset(self._all_scores.index)

    @cached_property
    def prompts_digest(self) -> str | None:
        """A hash of every question's id and prompt, whatever their order; None where the cell has no answers."""
        return self._digest("example_id", "prompt")

    @cached_property
    def answers_digest(self) -> str | None:
        """As `prompts_digest`, of the answers and their verdicts too."""
        return self._digest("example_id", "prompt", "answer", "correct")

    def _digest(self, *names: str) -> str | None:
        file = self.folder / "answers.parquet"
        if not file.exists():
            return None
        table = _table(file, names)
        rows = sorted(zip(*(table[name].to_pylist() for name in names), strict=True))
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    @cached_property
    def _read_answers(self) -> dict[str, list[Any]] | None:
        """The columns of ``answers.parquet`` that a report looks at, read once; None where the cell has none."""
        file = self.folder / "answers.parquet"
        return dict(_table(file, _OF_ANSWERS).to_pydict()) if file.exists() else None

    @cached_property
    def answers(self) -> pd.DataFrame | None:
        """``answer`` and ``correct`` of ``answers.parquet`` by example_id; None where the cell has none."""
        import pandas as pd

        read = self._read_answers
        if read is None:
            return None
        return pd.DataFrame({name: read[name] for name in ("answer", "correct")}, index=_index(read))

    @cached_property
    def texts(self) -> pd.DataFrame | None:
        """What its examples say, by example_id; None where no table holds it.

        Of answers ``question``, ``answer``, ``reference`` and ``correct``; of statements ``question``, the text alone.
        """
        import pandas as pd

        read, statements = self._read_answers, self.folder / "statements.parquet"
        if read is not None:
            ids = read["example_id"]
            return pd.DataFrame(
                {
                    "question": read.get("question", ids),  # not in records from before it was kept
                    "answer": read["answer"],
                    "reference": [" | ".join(each) for each in read.get("references", [()] * len(ids))],
                    "correct": read["correct"],
                },
                index=_index(read),
            )
        if statements.exists():
            found = pd.read_parquet(statements, columns=["example_id", "text"]).set_index("example_id")
            return found.rename(columns={"text": "question"})
        return None

    @cached_property
    def other_scores(self) -> tuple[str, ...]:
        """Names of the scores that stand beside the cell's own in ``other_scores.parquet``; none without the file."""
        import pyarrow.parquet

        file = self.folder / "other_scores.parquet"
        if not file.exists():
            return ()
        names: list[str] = pyarrow.parquet.read_schema(file).names
        return tuple(name for name in names if name != "example_id")

    @cached_property
    def judges(self) -> dict[str, tuple[tuple[str, ...], float]]:
        """By ``judges.parquet``: of each score the readings that it takes, and their seconds with its own."""
        import pyarrow.parquet

        file = self.folder / "judges.parquet"
        rows = pyarrow.parquet.read_table(file).to_pylist() if file.exists() else []
        return {
            row["score"]: (tuple(json.loads(row["readings"])), row["reading_s"] + row["own_s"])
            for row in rows
        }

    @cached_property
    def other_values(self) -> pd.DataFrame:
        """``other_scores.parquet`` by example_id, a column a score, of the examples in ``scores``."""
        import pandas as pd

        found = pd.read_parquet(self.folder / "other_scores.parquet").set_index("example_id")
        return found.loc[self.scores.index]

    @property
    def whole_scores(self) -> tuple[str, ...]:
        """Those of ``other_scores`` that all examples in ``scores`` have."""
        lacking = set(self.other_values.columns[self.other_values.isna().any()]) if self.other_scores else ()
        return tuple(name for name in self.other_scores if name not in lacking)

    @cached_property
    def references(self) -> pd.DataFrame | None:
        """``judged``, ``references`` and ``correct`` of ``answers.parquet`` by example_id; None where it has none.

        ``judged`` is the part of each answer that its rule judged, None where nothing was found.
        """
        import pandas as pd

        read = self._read_answers
        if read is None or "references" not in read:
            return None
        judged = read.get("extracted", read["answer"])
        columns = {"judged": judged, "references": read["references"], "correct": read["correct"]}
        return pd.DataFrame(columns, index=_index(read))

    @cached_property
    def has_one_scale(self) -> bool:
        """Whether the scores can be held against each other: those of several folds are each on a scale of its own."""
        recorded = self.metric("auroc")
        if recorded is None:  # a saved probe's scores of statements without labels
            return False
        found = auroc(self.labels, self.values)
        return math.isnan(found) if math.isnan(recorded) else abs(recorded - found) < _ROUNDING

    @property
    def labels(self) -> BoolArray:
        """`bool[n]`, the truth of each test example."""
        return self.scores["label"].to_numpy(dtype=np.bool_)

    @property
    def values(self) -> FloatArray:
        """`float64[n]`, the score of each test example."""
        return self.scores["score"].to_numpy(dtype=np.float64)

    @property
    def threshold(self) -> float:
        """A trained probe calls an example true above this score; 0 for the text baseline, an even chance."""
        return self.record.metrics.get("threshold", 0.0)


def _table(path: Path, names: Sequence[str] | None = None) -> pyarrow.Table:
    """A table of a cell, of these columns as far as it has them; without the scanner, which takes as long again."""
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        known = file.schema_arrow.names
        return file.read([name for name in names or known if name in known], use_threads=False)


def _index(read: Mapping[str, list[Any]]) -> pd.Index:
    import pandas as pd

    index: pd.Index = pd.Index(read["example_id"], name="example_id")
    return index


def load_cells(
    results_dir: Path,
    keys: Collection[str] | None = None,
    *,
    on_damage: Callable[[str], None] | None = None,
) -> list[RecordedCell]:
    """Recorded cells, done or failed, in the order they were started.

    Args:
        results_dir: folder of the recorded cells.
        keys: those to read; None for all.
        on_damage: told in a sentence of each cell that is damaged, may not be read or is a copy of another, and is not
            returned; None: it is raised.

    Raises:
        StoreError: a cell is damaged, may not be read or is a copy, and nobody wants to be told.
    """
    cells = []
    for key in record.recorded_keys(results_dir):
        if keys is not None and key not in keys:
            continue
        try:
            found = sound(results_dir / key)
            if found is not None:
                record.refuse_copy(results_dir / key, found)
                config = dict(flatten(record.read_config(results_dir, key)))
                cells.append(RecordedCell(results_dir / key, found, config))
        except StoreError as error:
            if on_damage is None:
                raise
            on_damage(str(error))
    return sorted(cells, key=lambda cell: cell.record.provenance.started_at)
