"""The examples of a cell, or of two cells side by side, as plain values for a page: what was asked, said and scored.

Knows the tables of a cell. A column that it does not know is shown all the same: a number among the marks, a text
under its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probegrid.tracking.record import CellRecord
from probegrid.tracking.redaction import redact

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("scores", "answers", "other_scores", "samples", "statements", "layer_scores")
"""The tables that a page of examples is made from, as far as a cell has them."""
MOST_ROWS = 20_000
"""A page of more examples would be too large to be opened: the first so many are on it, and it says so."""
MOST_CHARACTERS = 4_000
"""Of one text; the whole of it is in the parquet file."""
_DIGITS = 4
_OF_ANSWERS = frozenset(
    (
        *("example_id", "question", "prompt", "answer", "token_ids", "token_logprobs", "token_texts"),
        *("n_tokens", "ended", "references", "correct", "extracted"),
    )
)


@dataclass(frozen=True)
class CellTables:
    """A cell that ended well, and its tables by name."""

    record: CellRecord
    tables: Mapping[str, pa.Table]

    @classmethod
    def of_folder(cls, record: CellRecord, folder: Path) -> CellTables:
        """The tables of a recorded cell, read now."""
        import pyarrow.parquet

        files = {name: folder / f"{name}.parquet" for name in TABLES}
        found = {name: pyarrow.parquet.read_table(file) for name, file in files.items() if file.exists()}
        return cls(record, found)

    @property
    def has_answers(self) -> bool:
        """Whether its examples are questions with the model's answers; statements otherwise."""
        return "answers" in self.tables

    @property
    def score_names(self) -> list[str]:
        """Its probe's own score, by the probe's name, and those beside it."""
        own, others = self.record.choices.get("probe", "score"), self.tables.get("other_scores")
        names = [] if others is None else others.column_names
        return [own, *(name for name in names if name not in (own, "example_id"))]

    @property
    def layers(self) -> list[int]:
        """Layers whose scores are known; none where the probe reads none."""
        names = self.tables["layer_scores"].column_names if "layer_scores" in self.tables else []
        return [int(name.removeprefix("layer_")) for name in names if name != "example_id"]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """An example each: what it is (``id``, ``question``, ...) and, under ``at``, what this cell found of it."""
        scores = _records(self.tables["scores"])[:MOST_ROWS]
        others = _by_id(self.tables.get("other_scores"))
        layered = _by_id(self.tables.get("layer_scores"))
        about = _by_id(self.tables.get("answers") or self.tables.get("statements"))
        samples = self._samples()
        rows = []
        for row in scores:
            example = row["example_id"]
            found = about.get(example, {})
            beside = others.get(example, {})
            at: dict[str, Any] = {
                "scores": [
                    _rounded(row["score"]),
                    *(_rounded(beside.get(name)) for name in self.score_names[1:]),
                ]
            }
            if example in layered:
                at["layers"] = [_rounded(layered[example][f"layer_{layer}"]) for layer in self.layers]
            if self.has_answers:
                at |= _answer(found, samples.get(example, ()))
            rows.append({**_example(row, found, has_answers=self.has_answers), "at": at})
        return rows

    def _samples(self) -> dict[str, list[list[Any]]]:
        """The samples of each question: text, cluster (None: not known), log-likelihood."""
        found: dict[str, list[list[Any]]] = {}
        for row in _records(self.tables["samples"]) if "samples" in self.tables else ():
            logprob = _rounded(float(np.sum(row["token_logprobs"])))
            found.setdefault(row["example_id"], []).append([_cut(row["answer"]), row.get("cluster"), logprob])
        return found


def example_data(cells: Sequence[CellTables]) -> dict[str, Any]:
    """What a page of examples holds, as plain values.

    Args:
        cells: one, or two that are put side by side: examples of the first, and of the second those that it shares.

    Raises:
        ValueError: one cell has answers and the other statements.
    """
    first, *others = cells
    if any(other.has_answers != first.has_answers for other in others):
        raise ValueError("a cell of answers and one of statements have no examples in common")
    found = [{(row["id"], row["question"]): row["at"] for row in other.rows} for other in others]
    rows = [
        {**row, "at": [row["at"], *(of.get((row["id"], row["question"])) for of in found)]}
        for row in first.rows
    ]
    prefix = _common_prefix([row["prompt"] for row in rows if row.get("prompt")])
    for row in rows:
        if row.get("prompt"):
            row["prompt"] = _cut(row["prompt"].removeprefix(prefix)) or " "
    return {
        "kind": "answers" if first.has_answers else "statements",
        "cells": [_cell(cell) for cell in cells],
        "splits": sorted({row["split"] for row in rows}),
        "has_sources": len({row.get("source", "") for row in rows}) > 1,
        "prefix": _cut(prefix),
        "talks": _talks(rows, first),
        "rows": rows,
    }


def notes_on(cells: Sequence[CellTables]) -> list[str]:
    """What is left out of a page of examples."""
    most = max(cell.tables["scores"].num_rows for cell in cells)
    return [f"The first {MOST_ROWS} of {most} examples; all are in the parquet files."] * (most > MOST_ROWS)


def _cell(cell: CellTables) -> dict[str, Any]:
    metrics = cell.record.metrics
    return {
        "name": redact(cell.record.name),
        "key": cell.record.cell,
        "scores": cell.score_names,
        "threshold": metrics.get("threshold", 0.0),
        "layers": cell.layers,
        "layer": int(metrics["layer"]) if "layer" in metrics else None,
    }


def _example(row: Mapping[str, Any], found: Mapping[str, Any], *, has_answers: bool) -> dict[str, Any]:
    example = {"id": row["example_id"], "group": row["group"], "split": row["split"]}
    if has_answers:
        return {
            **example,
            "question": _cut(found.get("question") or row["example_id"]),
            "references": [_cut(text) for text in found.get("references") or ()],
            "prompt": found.get("prompt") or "",
        }
    told = {"question": _cut(found.get("text") or row["example_id"]), "label": row["label"]}
    if "conversation" in found:
        span = [found["char_start"], found["char_end"]]
        told |= {"source": found["source"], "talk": found["conversation"], "span": span}
    return example | told


def _answer(found: Mapping[str, Any], samples: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What a cell answered: its columns that we know, and those we do not by their names."""
    said: dict[str, Any] = {
        "answer": _cut(found.get("answer") or ""),
        "correct": bool(found.get("correct")),
        "ended": found.get("ended"),
        "n_tokens": found.get("n_tokens"),
    }
    if found.get("token_texts"):
        logprobs = map(_rounded, found["token_logprobs"])
        said["tokens"] = [list(pair) for pair in zip(found["token_texts"], logprobs, strict=False)]
    if "extracted" in found:
        said["extracted"] = found["extracted"]
    if samples:
        said["samples"] = samples
    further = {name: value for name, value in found.items() if name not in _OF_ANSWERS and value is not None}
    marks = [
        [name.replace("_", " "), _rounded(value)]
        for name, value in further.items()
        if isinstance(value, int | float)
    ]
    more = [[name, _cut(value)] for name, value in further.items() if isinstance(value, str) and value]
    return said | {name: value for name, value in (("marks", marks), ("more", more)) if value}


def _talks(rows: Sequence[dict[str, Any]], cell: CellTables) -> list[dict[str, Any]]:
    """The conversations that statements stand in, each once; a row's ``talk`` becomes its place among them.

    A statement that is all there is needs none.
    """
    about = _by_id(cell.tables.get("statements"))
    places: dict[str, int] = {}
    talks: list[dict[str, Any]] = []
    for row in rows:
        name, found = row.pop("talk", None), about.get(row["id"], {})
        if name is None or (found["passage"].strip() == found["text"].strip() and not found["before"]):
            continue
        if name not in places:
            places[name] = len(talks)
            talks.append(
                {"text": found["passage"], "before": [list(turn.values()) for turn in found["before"]]}
            )
        row["talk"] = places[name]
    return talks


def _common_prefix(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = (min(texts), max(texts)) if texts else ("", "")
    length = next(
        (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None
    )
    return first[:length]


def _records(table: pa.Table) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = table.to_pylist()
    return records


def _by_id(table: pa.Table | None) -> dict[str, dict[str, Any]]:
    return {} if table is None else {row["example_id"]: row for row in _records(table)}


def _rounded(value: float | None) -> float | None:
    """To as many digits as a page shows: a file that is mailed need not carry seventeen."""
    return None if value is None or value != value else float(f"{value:.{_DIGITS}g}")


def _cut(text: str) -> str:
    more = len(text) - MOST_CHARACTERS
    return text if more <= 0 else f"{text[:MOST_CHARACTERS]}... ({more} more characters)"
