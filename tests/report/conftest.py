"""Real cells of the embedded model, run once for all tests of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from recorder import Recorder

import probegrid
from probegrid.report.cells import RecordedCell, load_cells

QUESTIONS = ("dataset.num_samples=60", "prompt.num_few_shot=2", "decoding.max_new_tokens=6")
CELLS: tuple[tuple[str, ...], ...] = (
    ("dataset=facts", *QUESTIONS),
    ("dataset=facts", *QUESTIONS, "quantization=nf4"),
    ("dataset=facts", *QUESTIONS, "prompt.num_few_shot=0"),
    ("dataset=facts", *QUESTIONS, "probe=semantic_entropy", "decoding.num_generations=4"),
    ("dataset=facts_statements", "dataset.num_samples=120", "probe=logistic", "probe.layers=[2,5]"),
    ("dataset=facts_statements", "dataset.num_samples=120", "probe=text_baseline", "probe.split=random"),
)
OTHER_MODEL = ("dataset=facts", *QUESTIONS, "model=custom", "model.dtype=float32")
Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def results(once: Once, checkpoint: Callable[[str], Path]) -> Path:
    """A ``results_dir`` with a cell for each of ``CELLS``, and the first with a random model of another size."""

    def run_all(folder: Path) -> None:
        places = (f"results_dir={folder / 'results'}", f"store_dir={folder / 'store'}", "tracking=none")
        for overrides in (*CELLS, (*OTHER_MODEL, f"model.path={checkpoint('llama')}")):
            probegrid.run([*places, *overrides])

    return once("report", run_all) / "results"


@pytest.fixture(scope="session")
def cells(results: Path) -> Sequence[RecordedCell]:
    """The cells in the order of ``CELLS``, the other model's last."""
    return load_cells(results)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """An empty ``results_dir`` to record cells in."""
    return Recorder(tmp_path / "recorded")
