"""What MLflow's own pages show of a cell besides its numbers: a table of its examples, and the data that it read.

Knows the tables of a recorded cell and the forms in which MLflow keeps such things; imports no mlflow.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probegrid.tracking.record import CellRecord

EXAMPLES_TABLE = "examples.json"
TABLES_TAG = "mlflow.loggedArtifacts"
"""The tag by which MLflow's evaluation view finds the tables of a run."""
MOST_ROWS = 1_000
"""MLflow's view holds a table whole in the browser; all rows are in the parquet files."""
SWEEP_TABLES = ("table", "comparisons", "costs", "device_maps")
"""Tables of a sweep's report that its run shows likewise."""
_DIGEST_LENGTH = 36
_ASKED = ("example_id", "question", "references", "text", "label")
"""What of the examples makes them these and no others, as far as a cell recorded it."""


@dataclass(frozen=True)
class DatasetFacts:
    """A dataset as MLflow lists the inputs of a run."""

    name: str
    digest: str
    """Hash of the ids, questions, references, statements and labels, shortened to what MLflow takes."""
    source: str
    """Where it came from, as JSON."""
    profile: str
    """How many examples there are, as JSON."""


def examples_table(folder: Path) -> str | None:
    """The first examples of a cell in the JSON of MLflow's tables; None where it has no scores.

    Args:
        folder: of the recorded cell.
    """
    rows = _rows(folder)
    return as_table(rows[:MOST_ROWS]) if rows else None


def csv_table(file: Path) -> str | None:
    """A CSV of ours in the JSON of MLflow's tables; None where it is not there or is empty."""
    if not file.exists():
        return None
    with file.open(newline="") as lines:
        rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    return as_table(rows[:MOST_ROWS]) if rows else None


def tables_tag(names: Sequence[str]) -> str:
    """The value of `TABLES_TAG` for these artifacts."""
    return json.dumps([{"path": name, "type": "table"} for name in names])


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as MLflow writes a table; what is not a number is null."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data = [[_plain(row.get(name)) for name in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False)


def dataset_of(folder: Path, record: CellRecord, config: dict[str, Any]) -> DatasetFacts | None:
    """The dataset that a cell read; None where it recorded no examples.

    Args:
        folder: of the recorded cell.
        record: its record.
        config: its resolved config, secrets removed.
    """
    rows = _rows(folder)
    name = record.choices.get("dataset")
    if not rows or name is None:
        return None
    asked = [[row.get(one) for one in _ASKED if one != "label" or "question" not in row] for row in rows]
    digest = hashlib.sha256(
        json.dumps(asked, ensure_ascii=False).encode("utf-8", "backslashreplace")
    ).hexdigest()
    said = config.get("dataset")
    kept = {key: value for key, value in said.items() if value is not None} if isinstance(said, dict) else {}
    return DatasetFacts(name, digest[:_DIGEST_LENGTH], json.dumps(kept), json.dumps({"num_rows": len(rows)}))


def _rows(folder: Path) -> list[dict[str, Any]]:
    """A row an example: what it says, the answer and its verdict where there is one, every score."""
    import pyarrow.parquet

    def read(name: str, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
        file = folder / f"{name}.parquet"
        if not file.exists():
            return {}
        known = pyarrow.parquet.read_schema(file).names
        wanted = [one for one in columns or known if one in known]
        if "example_id" not in known:
            return {}
        return {
            row["example_id"]: row for row in pyarrow.parquet.read_table(file, columns=wanted).to_pylist()
        }

    scores = read("scores", ())
    answers = read("answers", ("example_id", "question", "answer", "references", "correct", "ended"))
    statements, others = read("statements", ("example_id", "text")), read("other_scores", ())
    parts = (answers, statements, scores, others)
    return [
        {name: one for part in parts for name, one in part.get(example, {}).items()} for example in scores
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return " | ".join(map(str, value))
    return None if isinstance(value, float) and value != value else value
