"""What stands behind a row of a report: the telling examples of a cell, and of two cells the answers that changed.

Knows recorded cells. A page that is mailed alone holds these few; where the cells lie beside it, it leads to all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegrid.report.cells import RecordedCell
from probegrid.report.comparisons import Comparison, at, shared_ids
from probegrid.report.example_rows import CellTables
from probegrid.report.examples_page import EXAMPLES_FILE, examples_page

MOST_PAIRS = 40
"""Pairs of cells that get a page of their own; of further ones the report holds the first answers that changed."""
_OF_ALL, _MOST, _FEWEST = 900, 8, 1
"""Examples of one kind, on the whole page; of a cell at most, and at least."""
_CHANGED = 15
_LONGEST = 240
_PAIRS_FOLDER = "pairs"


def examples_behind(cells: Sequence[RecordedCell], folder: Path | None) -> dict[str, Any]:
    """By key of a cell its examples that are confident and wrong, unsure and right, and empty, the most telling first.

    Args:
        cells: those that ended well.
        folder: of the report, from which the cells' own pages are found; None: nothing leads to them.
    """
    most = max(_FEWEST, min(_MOST, _OF_ALL // max(1, len(cells))))
    found = {cell.record.cell: _telling(cell, most, folder) for cell in cells}
    return {key: told for key, told in found.items() if told}


def pairs_behind(made: Sequence[Comparison]) -> dict[str, Any]:
    """By the keys of two compared cells what became of their answers; of those that answer nothing, nothing."""
    found: dict[str, Any] = {}
    for one in made:
        told = _changes(one)
        if told is not None:
            first, second = one.pair.first.record.cell, one.pair.second.record.cell
            if len(found) < MOST_PAIRS:
                told["href"] = f"{_PAIRS_FOLDER}/{first}-{second}.html"
            found[f"{first} {second}"] = told
    return found


def pair_pages(made: Sequence[Comparison], told: dict[str, Any]) -> dict[str, bytes]:
    """The pages of compared cells side by side, by relative path."""
    pages: dict[str, bytes] = {}
    for one in made:
        first, second = one.pair.first, one.pair.second
        href = told.get(f"{first.record.cell} {second.record.cell}", {}).get("href")
        if href is not None and href not in pages:
            tables = (CellTables.of_folder(cell.record, cell.folder) for cell in (first, second))
            pages[href] = examples_page(*tables).encode()
    return pages


def _href(cell: RecordedCell, folder: Path | None) -> str | None:
    page = cell.folder / EXAMPLES_FILE
    if folder is None or not page.exists():
        return None
    return Path(os.path.relpath(page.resolve(), folder.resolve())).as_posix()


def _telling(cell: RecordedCell, most: int, folder: Path | None) -> dict[str, Any] | None:
    scores, about = cell.scores, cell.texts
    if about is None or scores.empty or scores["label"].isna().any():
        return None
    shared = scores.index.intersection(about.index, sort=False)
    scores, about = at(scores, shared), at(about, shared)
    told = {"name": cell.record.name, "n": len(shared), "href": _href(cell, folder)}
    score, label = scores["score"].to_numpy(dtype=np.float64), scores["label"].to_numpy(dtype=np.bool_)
    columns = {name: about[name].tolist() for name in ("question", "answer", "reference") if name in about}
    if "answer" in about:
        right, sure = about["correct"].to_numpy(dtype=np.bool_), score
        empty = [row for row, answer in enumerate(columns["answer"]) if not answer.strip()]
        told["empty"] = _rows([*columns.values(), score.tolist()], empty[:most])
        names = [*columns, "score"]
    else:
        right, sure = (score > cell.threshold) == label, np.abs(score - cell.threshold)
        columns["label"] = ["true" if one else "false" for one in label]
        names = ["statement", "label", "score"]
    middle, shown = np.median(sure) if len(sure) else 0.0, [*columns.values(), score.tolist()]
    wrong, unsure = (np.flatnonzero(of) for of in (~right & (sure >= middle), right & (sure <= middle)))
    return told | {
        "columns": names,
        "confident-wrong": _rows(shown, wrong[np.argsort(-sure[wrong], kind="stable")][:most]),
        "unsure-right": _rows(shown, unsure[np.argsort(sure[unsure], kind="stable")][:most]),
    }


def _rows(columns: Sequence[Sequence[Any]], places: Iterable[int]) -> list[list[Any]]:
    return [[_short(column[place]) for column in columns] for place in places]


def _changes(one: Comparison) -> dict[str, Any] | None:
    first, second = one.pair.first.texts, one.pair.second.texts
    if first is None or second is None or "answer" not in first or "answer" not in second:
        return None
    ids, _ = shared_ids(one.pair)
    first, second = at(first, ids), at(second, ids)
    other_text = (first["answer"] != second["answer"]).to_numpy()
    was, now = (table["correct"].to_numpy(dtype=np.bool_) for table in (first, second))
    lost, won = int((was & ~now).sum()), int((~was & now).sum())
    order = np.argsort(~(was != now)[other_text], kind="stable")[:_CHANGED]
    places = np.flatnonzero(other_text)[order]
    rows = [
        [
            *map(_short, (first["question"].iloc[at], first["reference"].iloc[at])),
            *(_short(first["answer"].iloc[at]), bool(was[at])),
            *(_short(second["answer"].iloc[at]), bool(now[at])),
        ]
        for at in places
    ]
    names = (one.pair.first_name, one.pair.second_name)
    return {
        "name": f"{names[0]} beside {names[1]}",
        "says": f"{len(ids)} questions: {int(other_text.sum())} answers have another text; {lost} are right by "
        f"{names[0]} alone, {won} by {names[1]} alone.",
        "columns": ["question", "reference", names[0], "verdict", names[1], "verdict"],
        "rows": rows,
        "href": None,
    }


def _short(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
    return float(f"{value:.4g}") if isinstance(value, float) else value
