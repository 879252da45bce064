"""What MLflow's pages are given besides numbers: a table of examples, and a digest that tells data from other data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from probegrid.tracking.mlflow_tables import MOST_ROWS, csv_table, dataset_of, examples_table
from probegrid.tracking.provenance import Provenance
from probegrid.tracking.record import CellRecord, Status

RECORD = CellRecord(
    "key",
    "tiny-none-facts-gnll",
    Status.done,
    {"dataset": "facts"},
    Provenance(None, None, "node", (), None, "probegrid", "2026-03-01T10:00:00+00:00", 1.0),
)


def write(folder: Path, answers: Sequence[str], references: Sequence[list[str]], score: float = 0.5) -> Path:
    """A cell's tables of so many answers."""
    folder.mkdir()
    ids = [f"q{place}" for place in range(len(answers))]
    tables = {
        "scores": {"example_id": ids, "label": [True] * len(ids), "score": [score] * len(ids)},
        "other_scores": {"example_id": ids, "mean_nll": [float("nan")] * len(ids)},
        "answers": {
            "example_id": ids,
            "question": [f"Which is {one}?" for one in ids],
            "answer": list(answers),
            "references": list(references),
            "correct": [True] * len(ids),
        },
    }
    for name, columns in tables.items():
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{name}.parquet")
    return folder


def test_a_row_has_what_was_asked_said_and_scored(tmp_path: Path) -> None:
    text = examples_table(write(tmp_path / "one", ["blue", "<b>"], [["blue", "azure"], []]))
    assert text is not None
    table = json.loads(text)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert rows[0] == {
        "example_id": "q0",
        "question": "Which is q0?",
        "answer": "blue",
        "references": "blue | azure",
        "correct": True,
        "label": True,
        "score": 0.5,
        "mean_nll": None,
    }
    assert rows[1]["answer"] == "<b>"


def test_a_table_is_no_longer_than_a_browser_holds(tmp_path: Path) -> None:
    text = examples_table(write(tmp_path / "one", ["a"] * (MOST_ROWS + 5), [["a"]] * (MOST_ROWS + 5)))
    assert text is not None
    assert len(json.loads(text)["data"]) == MOST_ROWS


def test_the_digest_is_of_the_data_and_not_of_what_a_model_made_of_it(tmp_path: Path) -> None:
    digests = []
    for name, answers, references, score in (
        ("one", ["a", "b"], [["a"], ["b"]], 0.5),
        ("other model", ["x", "y"], [["a"], ["b"]], 0.1),
        ("other data", ["a", "b"], [["a"], ["c"]], 0.5),
    ):
        found = dataset_of(write(tmp_path / name, answers, references, score), RECORD, {"dataset": {}})
        assert found is not None
        digests.append(found.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_cell_without_tables_has_none(tmp_path: Path) -> None:
    assert examples_table(tmp_path) is None
    assert dataset_of(tmp_path, RECORD, {}) is None
    assert csv_table(tmp_path / "none.csv") is None
