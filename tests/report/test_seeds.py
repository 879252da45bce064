"""Cells that differ in seeds alone are one row: mean, standard deviation, number; and one series of a figure."""

from __future__ import annotations

import numpy as np
import pytest
from recorder import Recorder

from probegrid.report.report import make_report
from probegrid.report.seeds import over_seeds

AREAS = (0.91, 0.95, 0.9, 0.93)


@pytest.fixture
def recorded(recorder: Recorder) -> Recorder:
    """Four seeds of one probe, one seed of another."""
    for seed, area in enumerate(AREAS):
        metrics = {
            "n": 4,
            "auroc": area,
            "auroc_ci_low": area - 0.1,
            "auroc_ci_high": 1,
            "accuracy": 0.5,
            "precision": 1,
        }
        recorder("dataset=facts_statements", "probe=logistic", f"seed={seed}", metrics=metrics)
    metrics = {
        "n": 4,
        "auroc": 0.8,
        "auroc_ci_low": 0.7,
        "auroc_ci_high": 0.9,
        "accuracy": 0.5,
        "precision": 1,
    }
    recorder("dataset=facts_statements", "probe=mass_mean", metrics=metrics)
    return recorder


def test_seeds_are_one_row_of_mean_deviation_and_number(recorded: Recorder) -> None:
    report = make_report(recorded.cells, title="t", compare=None, seed=0, resamples=20)
    assert report.table is not None
    first, second = report.table.rows
    assert first[0] == "logistic"
    assert first[-1] == f"{np.mean(AREAS):.3f} ± {np.std(AREAS, ddof=1):.3f} (4)"
    assert second[-1] == "0.800 [0.700, 0.900]"
    assert "seeds alone" in report.table.caption
    assert len(report.frames["table"]) == 5  # the file keeps each cell
    assert any("5 cells are 2 but for their seeds" in note for note in report.notes)


def test_means_have_a_deviation_either_way_and_no_seed(recorded: Recorder) -> None:
    together = over_seeds(recorded.cells)
    assert [len(one.cells) for one in together] == [4, 1]
    merged = together[0].merged
    estimate = merged.estimate("auroc")
    assert estimate is not None
    assert estimate.high - estimate.value == pytest.approx(np.std(AREAS, ddof=1))
    assert not [key for key in merged.config if key.endswith("seed")]


def test_what_differs_in_more_than_seeds_stays_apart(recorder: Recorder) -> None:
    for number in range(2):  # the same config: a file's content changed
        recorder("dataset=facts", metrics={"n": 4, "auroc": 0.5 + number / 10, "accuracy": 0.5})
    assert [len(one.cells) for one in over_seeds(recorder.cells)] == [1, 1]
