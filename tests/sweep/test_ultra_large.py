"""The preset of the largest models, with tiny checkpoints under their names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from sweep_helpers import Grid

FAMILY = {"llama70b": "llama", "qwen72b": "qwen2", "mistral_large": "mistral"}
Checkpoints = Callable[[str], Path]


def test_ultra_large_loads_three_models_for_six_cells(grid: Grid, checkpoint: Checkpoints) -> None:
    for name, family in FAMILY.items():
        grid.add("model", name, {"path": str(checkpoint(family)), "dtype": "float32"})
    add_dataset(grid, "trivia_qa", [trivia_row(number) for number in range(60)])
    add_dataset(grid, "squad", [squad_row(number) for number in range(60)])

    ended = grid.run("experiment=ultra_large", "decoding.max_new_tokens=4", "hydra.launcher.poll_s=0.3")
    assert ended.returncode == 0
    assert grid.states() == ["done"] * 6
    assert grid.sweep().name.startswith("ultra_large-")
    loads = [(grid.folder / job["log"]).read_text().count("loaded ") for job in grid.jobs()]
    assert loads == [1, 1, 1]
    records = grid.records().values()
    assert Counter(record["choices"]["model"] for record in records) == dict.fromkeys(FAMILY, 2)
    assert Counter(record["choices"]["dataset"] for record in records) == {"trivia_qa": 3, "squad": 3}
    assert {record["choices"]["quantization"] for record in records} == {"nf4"}


def add_dataset(grid: Grid, name: str, rows: list[dict[str, object]]) -> None:
    """Add a dataset under a name of ours that reads a local file; the few-shot examples are of the same file."""
    file = grid.folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    defaults = [f"/schema/dataset/{name}@_here_", "_self_"]
    grid.add("dataset", name, {"defaults": defaults, "path": str(file), "seed": "${seed}"})


def trivia_row(number: int) -> dict[str, object]:
    return {
        "question": f"Which town is number {number}?",
        "question_id": f"tc_{number}",
        "answer": {"value": "Oslo", "aliases": ["Christiania", "Oslo"], "normalized_value": "oslo"},
    }


def squad_row(number: int) -> dict[str, object]:
    return {
        "id": f"q{number}",
        "title": f"Rivers {number // 4}",
        "context": f"Paragraph {number // 4} tells of a river.",
        "question": f"What is asked as number {number}?",
        "answers": {"text": ["the river"], "answer_start": [0]},
    }
