"""The ranking of all scores of the same answers: values, differences and seconds by hand, and what has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import probegrid
from probegrid.report.cells import RecordedCell
from probegrid.report.ranking import ranking_table, rankings
from probegrid.report.ranking_figure import compared_ranking_chart
from probegrid.report.report import report_on
from probegrid.schema import ReportConfig

pytestmark = pytest.mark.slow  # cells of the embedded model

SMALL = ("decoding=sample", "decoding.num_generations=3", "dataset.num_samples=60", "tracking=none")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranking")
    places = (f"store_dir={folder / 'store'}", f"results_dir={folder / 'results'}")
    for probe in ("semantic_entropy", "mass_mean"):
        probegrid.run([*places, *SMALL, f"probe={probe}"])
    return folder / "results"


@pytest.fixture(scope="module")
def cells(results: Path) -> list[RecordedCell]:
    from probegrid.report.select import select

    return list(select(results, ReportConfig(), lambda said: None).cells)


def test_scores_are_ranked_against_gnll(cells: list[RecordedCell]) -> None:
    (found,) = rankings(cells, seed=0, flips=200)
    areas = [row.score.area.value for row in found.rows]
    assert areas == sorted(areas, reverse=True)
    names = [row.score.name for row in found.rows]
    assert {"gnll", "semantic_entropy", "mass_mean", "sar", "deg_mat", "n_tokens"} <= set(names)
    assert len(names) == len(set(names))
    by_name = {row.score.name: row for row in found.rows}
    whole = next(cell for cell in cells if not cell.is_trained)
    gnll, sar = (whole.other_values[name] for name in ("gnll", "sar"))
    expected = roc_auc_score(whole.labels, sar) - roc_auc_score(whole.labels, gnll)
    difference = by_name["sar"].difference
    assert difference is not None
    assert difference.value == pytest.approx(expected)
    assert by_name["gnll"].difference is None
    assert {row.tests for row in found.rows} == {len(names) - 1}
    trained = by_name["mass_mean"]
    rows = trained.score.values.join(gnll.rename("base"), how="inner")
    assert len(rows) == trained.score.n < len(whole.labels)
    assert trained.difference is not None
    assert trained.difference.value == pytest.approx(
        roc_auc_score(rows.label, rows.score) - roc_auc_score(rows.label, rows.base)
    )


def test_the_table_has_the_seconds_of_each(cells: list[RecordedCell]) -> None:
    found = rankings(cells, seed=0, flips=200)
    table = ranking_table(found, cells)
    assert table is not None
    frame = table.frame().set_index("score")
    took = pd.read_parquet(next(cell for cell in cells if not cell.is_trained).folder / "judges.parquet")
    took = took.set_index("score")
    assert frame.seconds["sar"] == pytest.approx(took.reading_s["sar"] + took.own_s["sar"])
    assert frame.readings["sar"].split() == ["rouge_l", "answers"]
    assert frame.seconds["gnll"] < frame.seconds["semantic_entropy"]
    assert frame.seconds["mass_mean"] == next(cell for cell in cells if cell.is_trained).metric("read_s")
    (panel,) = compared_ranking_chart(found, cells).panels
    assert len(panel.names) == sum(len(curve.x) for curve in panel.curves)
    assert ranking_table([], cells) is None


@pytest.mark.parametrize("differs", ["decoding", "verdicts"])
def test_other_answers_are_ranked_apart_and_told_apart(cells: list[RecordedCell], differs: str) -> None:
    cell = next(cell for cell in cells if not cell.is_trained)
    config = {**cell.config, "decoding.max_new_tokens": "1"} if differs == "decoding" else cell.config
    other = replace(cell, config=config, record=replace(cell.record, cell="e" * 16))
    if differs == "verdicts":
        object.__setattr__(other, "answers_digest", "of references that were edited")
    found = rankings([cell, other], seed=0, flips=50)
    assert [one.cells for one in found] == [(cell,), (other,)]
    table = ranking_table(found, [cell, other])
    assert table is not None
    assert table.columns[0] == ("decoding.max_new_tokens" if differs == "decoding" else "key")
    assert len({row[0] for row in table.rows}) == 2
    assert len({panel.title for panel in compared_ranking_chart(found, [cell, other]).panels}) == 2


def test_a_report_shows_it(results: Path, tmp_path: Path) -> None:
    report = report_on(results, ReportConfig(folder=str(tmp_path / "report"), resamples=200))
    assert {"ranking", "compared_scores", "other_scores"} <= report.frames.keys()
    assert "ranking" in report.images
    columns = next(table for table in report._filed if table.name == "compared_scores").columns
    assert columns[-2:] == ["semantic entropy", "gnll"] or "gnll" in columns
