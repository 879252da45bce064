"""Cells that differ in seeds alone are one row: mean, standard deviation, number; and one series of a figure."""

from __future__ import annotations

import numpy as np
import pytest
from recorder import Recorder

from probegrid.evaluation.summary import NO_INTERVAL, SAFE_SIDE, SMALL_SAMPLES
from probegrid.report.cell_tables import FEW, WIDE
from probegrid.report.drawing import draw
from probegrid.report.examples_table import examples_table
from probegrid.report.figures import make_figures
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


def test_a_ranking_of_means_says_what_its_bars_are(recorded: Recorder) -> None:
    said = {chart.name: chart.x_label for chart in make_figures(recorded.cells).charts}["ranking"]
    assert said == "AUROC: over seeds mean ± standard deviation, else 95% interval"
    alone = [recorded.cells[0], recorded.cells[-1]]
    assert {chart.name: chart.x_label for chart in make_figures(alone).charts}[
        "ranking"
    ] == "AUROC with its 95% interval"


def test_an_interval_of_small_samples_is_marked_and_one_that_is_missing_has_its_reason(
    recorder: Recorder,
) -> None:
    areas = {"n": 4, "accuracy": 0.5, "auroc": 0.8, "auroc_ci_low": 0.1, "auroc_ci_high": 1.0}
    recorder("dataset=facts", metrics=areas, notes={"auroc": f"3 groups: {SMALL_SAMPLES}"})
    recorder("dataset=facts_rare", metrics=areas | {"auroc_ci_low": np.nan}, notes={"auroc": NO_INTERVAL})
    recorder("dataset=squad", metrics=areas)
    report = make_report(recorder.cells, title="t", compare=None, seed=0, resamples=20)
    assert report.table is not None
    assert [row[-1] for row in report.table.rows] == [
        "0.800 [0.100, 1.000] *",
        "0.800 (no interval)",
        "0.800 [0.100, 1.000]",
    ]
    assert list(report.table.notes)[:2] == [f"* {SMALL_SAMPLES}: 3 groups.", f"({NO_INTERVAL})"]


def test_intervals_on_the_safe_side_have_a_mark_of_their_own(recorder: Recorder) -> None:
    """In the wide table, whose note says why, once for all cells; a small sample's mark comes before it."""
    both = {"n": 4, "auprc": 0.8, "auprc_ci_low": 0.1, "auprc_ci_high": 1.0}
    why = "no more than 10 examples of one class"
    for dataset, note in (
        ("facts", f"{why}: {SAFE_SIDE}"),
        ("facts_rare", f"{why}: {SAFE_SIDE}"),
        ("squad", f"3 groups: {SMALL_SAMPLES}"),
    ):
        recorder(f"dataset={dataset}", metrics=both, notes={"auprc": note})
    wide = make_report(recorder.cells, title="t", compare=None, seed=0, resamples=20).wide_table
    assert wide is not None
    marks = [row[wide.columns.index("AUPRC")][-1] for row in wide.rows]
    assert marks == [WIDE, WIDE, FEW]
    assert list(wide.notes)[:2] == [f"{FEW} {SMALL_SAMPLES}: 3 groups.", f"{WIDE} {SAFE_SIDE}: {why}."]
    assert r"\textsuperscript{\S}" in wide.latex()


def test_texts_that_tell_the_labels_and_sources_left_out_are_in_the_report(recorder: Recorder) -> None:
    told = "the words of the texts alone tell true from false: what a probe finds may be no more"
    metrics = {"n": 4, "auroc": 0.8, "text_auroc": 0.1, "source_auroc_animals": 0.7}
    for seed, notes in ((0, {"text_auroc": told}), (1, {})):
        recorder(f"dataset={('facts_statements', 'statements')[seed]}", metrics=metrics, notes=notes)
    wide = make_report(recorder.cells, title="t", compare=None, seed=0, resamples=20).wide_table
    assert wide is not None
    assert f"{told}: facts_statements." in wide.notes
    assert wide.rows[0][wide.columns.index("AUROC on source animals")] == "0.700"


def test_examples_that_several_seeds_read_are_shown_once(recorder: Recorder) -> None:
    for seed, look in enumerate(("true: 'a'\nhalf are true", "true: 'b'\nhalf are true")):
        recorder("dataset=facts_statements", f"seed={seed}", metrics={"auroc": 0.5}, notes={"examples": look})
    table = examples_table(recorder.cells)
    assert table is not None
    assert [line for _, line in table.rows] == ["true: 'a'", "half are true", "true: 'b'"]


def test_what_differs_in_more_than_seeds_stays_apart(recorder: Recorder) -> None:
    for number in range(2):  # the same config: a file's content changed
        recorder("dataset=facts", metrics={"n": 4, "auroc": 0.5 + number / 10, "accuracy": 0.5})
    assert [len(one.cells) for one in over_seeds(recorder.cells)] == [1, 1]


def test_a_curve_of_seeds_is_their_mean_with_a_band(recorder: Recorder) -> None:
    """Scores fall, and of four examples the first and the third are right: an AUROC of 3/4 with each seed."""
    for seed in range(3):
        recorder("dataset=facts", f"seed={seed}", metrics={})
    recorder("dataset=facts", "quantization=nf4", metrics={})
    found = {chart.name: chart for chart in make_figures(recorder.cells).charts}
    for name, at, expected in (
        ("roc", [0, 25, 50, 75, 100], [0.5, 0.5, 1, 1, 1]),
        ("risk_coverage", [95], [0.5]),
    ):
        (panel,) = found[name].panels
        over, alone = panel.curves
        assert over.is_band
        assert not alone.is_band
        assert over.y[at] == pytest.approx(expected)
        assert over.low == pytest.approx(over.y)  # alike with every seed
    assert found["roc"].panels[0].curves[0].name == "none: AUROC 0.750 ± 0.000 (3)"
    assert b"FillBetweenPolyCollection" in draw(found["roc"])["svg"]


def test_seeds_stand_beside_the_interval_of_one(recorded: Recorder) -> None:
    found = {chart.name: chart for chart in make_figures(recorded.cells).charts}
    (panel,) = found["spread"].panels
    assert panel.names == ["logistic, the first seed", "logistic, over 4 seeds"]
    interval, deviation = panel.curves
    assert interval.high is not None
    assert (interval.x.tolist(), interval.high.tolist()) == ([AREAS[0]], [1])
    assert deviation.x == pytest.approx(np.mean(AREAS))
    assert deviation.high is not None
    assert deviation.high - deviation.x == pytest.approx(np.std(AREAS, ddof=1))


def test_folds_and_repeats_stand_beside_the_interval_of_one_division(recorder: Recorder) -> None:
    area = {"auroc": 0.8, "auroc_ci_low": 0.7, "auroc_ci_high": 0.9}
    spread = {"auroc_repeat_mean": 0.78, "auroc_repeat_sd": 0.05}
    recorder("dataset=facts_statements", "probe=logistic", metrics={**area, **spread})
    recorder("dataset=facts_statements", "probe=mass_mean", metrics=area)
    found = {chart.name: chart for chart in make_figures(recorder.cells).charts}
    (panel,) = found["spread"].panels
    assert panel.names == ["logistic", "logistic, over repeats"]
    _, deviation = panel.curves
    assert (deviation.low, deviation.high) == (pytest.approx([0.73]), pytest.approx([0.83]))


def test_costs_of_seeds_are_one_bar(recorder: Recorder) -> None:
    for seed in range(3):
        costs = {"load_s": 2.0, "read_s": 10.0 + seed, "tokens_per_s": 5.0 + seed}
        recorder("dataset=facts", f"seed={seed}", metrics=costs)
    seconds = next(chart for chart in make_figures(recorder.cells).charts if chart.name == "seconds")
    (panel,) = seconds.panels
    assert len(panel.names) == 1
    assert [bar.values.tolist() for bar in panel.bars] == [[2.0], [11.0]]


def test_comparisons_of_seeds_are_one_row(recorder: Recorder) -> None:
    answers = ("paris", "rome", "bonn", "oslo")
    for seed in range(3):
        for method, given in (("none", answers), ("nf4", ("paris", "rome", "bonn", f"no {seed}"))):
            recorder("dataset=facts", f"quantization={method}", f"seed={seed}", metrics={}, answers=given)
    report = make_report(recorder.cells, title="t", compare="quantization", seed=0, resamples=20)
    table = report.others[0]
    assert table.name == "comparisons"
    ((first, second, n, *numbers),) = table.rows
    assert (first, second, n) == ("nf4", "none", "4")
    assert "75.0%" in numbers  # the same text, in each
    assert "seeds alone" in table.caption
    assert len(table.cells) == 1
    assert report.frames["comparisons"]["seed"].tolist() == ["0", "1", "2"]  # the file keeps each
