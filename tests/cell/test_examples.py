"""Labelled examples of a trained probe: what a data set says belongs together stays on one side of a division."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from probegrid.cell.examples import Divided, examples_of_statements
from probegrid.data import load
from probegrid.data.example import StatementSet
from probegrid.data.jsonl import JsonlConfig
from probegrid.data.statements import StatementsConfig
from probegrid.probes.logistic import Logistic

_WORDS = ("amber", "basil", "copper", "dune", "ember", "fern", "garnet", "heron", "iris", "jade")
# no statement shares a word, a text or a subject with another, so that the column alone can join them
_ROWS = [
    {"statement": f"{first}{second}", "label": place % 2, "entity": f"e{place // 4}"}
    for place, (first, second) in enumerate((one, two) for one in _WORDS for two in _WORDS)
]


@pytest.mark.parametrize("dataset", [StatementsConfig, JsonlConfig])
@pytest.mark.parametrize("key", ["group", "group_column"])
@pytest.mark.parametrize("split", ["leakfree", "by_conversation", "prune"])
def test_a_group_of_the_file_stays_on_one_side(tmp_path: Path, dataset: Any, key: str, split: str) -> None:
    path = tmp_path / "a.csv"
    pd.DataFrame(_ROWS).to_csv(path, index=False)

    def torn(**columns: str) -> list[str]:
        """The groups of the file that two parts of a division share."""
        data = load(dataset(path=str(path), seed=1, **columns))
        assert isinstance(data, StatementSet)
        entity = {str(row["statement"]): str(row["entity"]) for row in _ROWS}
        made = Divided.of(examples_of_statements(data), Logistic(split=split))
        parts: dict[str, set[str]] = {}
        for text, part in zip(made.examples.texts, made.division.folds[0].parts, strict=True):
            parts.setdefault(entity[text], set()).add(str(part))
        return [name for name, found in parts.items() if len(found) > 1]

    assert torn(**{key: "entity"}) == []
    assert torn() != []  # without the column nothing says what belongs together
