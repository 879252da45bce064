"""A report over real cells: its tables read back, its page, its figures, and what it refuses."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from recorder import Recorder
from sklearn.metrics import roc_auc_score

from probegrid.errors import ConfigError
from probegrid.evaluation.calibration import ece
from probegrid.evaluation.summary import NO_SCORES, OF_SOME
from probegrid.report.cell_tables import cells_table, other_scores_table
from probegrid.report.cells import RecordedCell
from probegrid.report.columns import label, varying
from probegrid.report.curves import probabilities
from probegrid.report.panels import panels
from probegrid.report.report import Report, make_report, report_on, show_report
from probegrid.report.select import select_cells
from probegrid.report.tables import Table, latex_text
from probegrid.schema import Family, ReportConfig
from probegrid.tracking.record import CellError, Status

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

NUMBER = re.compile(r"(-?\d\.\d{3}) \[(-?\d\.\d{3}), (-?\d\.\d{3})\]")


class Page(HTMLParser):
    """Texts of the table cells by section, and the images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: dict[str, list[str]] = {}
        self.images: dict[str, bytes] = {}
        self.outside: list[str] = []
        self._section, self._in_cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "section":
            self._section = str(values["id"])
        if tag == "img":
            kind, _, data = str(values["src"]).partition(",")
            assert kind == "data:image/svg+xml;base64"
            self.images[self._section] = base64.b64decode(data)
        self.outside += [
            str(url) for name, url in attributes if name in ("src", "href") and "://" in str(url)
        ]
        self._in_cell = tag == "td"
        if self._in_cell:
            self.cells.setdefault(self._section, []).append("")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[self._section][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag != "td"


@pytest.fixture(scope="module")
def report(cells: Sequence[RecordedCell]) -> Report:
    broken = replace(
        cells[0].record,
        status=Status.failed,
        metrics={},
        error=CellError("RuntimeError", "out of <luck> & 100% of_memory\nmore", ""),
    )
    failed = replace(cells[0], record=broken)
    return make_report([*cells, failed], title="Sweep <7>", compare="quantization", seed=0, resamples=200)


def shown(text: str) -> str:
    """What a page shows of text in Markdown."""
    return html.unescape(re.sub(r"\\([\\|`\]])", r"\1", text))


def parsed_markdown(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|")]
    split = [[shown(cell.strip()) for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return [split[0], *split[2:]]


def test_every_form_of_the_table_holds_the_cells_own_numbers(
    report: Report, cells: Sequence[RecordedCell]
) -> None:
    files = {name: content.decode() for name, content in report.files.items() if name.startswith("table.")}
    raw = list(csv.DictReader(io.StringIO(files["table.csv"])))
    assert [row["key"] for row in raw] == [cell.record.cell for cell in cells]
    for row, cell in zip(raw, cells, strict=True):
        recorded = json.loads((cell.folder / "result.json").read_text())["metrics"]
        assert {name: float(row[name]) for name in recorded if row[name]} == {
            name: value for name, value in recorded.items() if value == value
        }
    header, *rows = parsed_markdown(files["table.md"])
    assert header == [
        "model",
        "quantization",
        "dataset",
        "probe",
        "prompt.num_few_shot",
        "n",
        "answer accuracy",
        "probe accuracy",
        "AUROC",
    ]
    for row, cell in zip(rows, cells, strict=True):
        metrics = cell.record.metrics
        if math.isnan(metrics["auroc"]):  # the random model is never right
            assert row[-1] == "undefined: one class only"
            continue
        found = NUMBER.match(row[-1])
        assert found is not None
        expected = [metrics[name] for name in ("auroc", "auroc_ci_low", "auroc_ci_high")]
        assert [float(text) for text in found.groups()] == pytest.approx(expected, abs=5.1e-4)
    body = files["table.tex"].split(r"\midrule")[1].split(r"\bottomrule")[0]
    latex_rows = [line.removesuffix(r" \\").split(" & ") for line in body.strip().splitlines()]
    assert latex_rows == [[latex_text(cell) for cell in row] for row in rows]
    assert files["table.tex"].count("{") == files["table.tex"].count("}")


def test_recorded_aurocs_are_sklearns(cells: Sequence[RecordedCell]) -> None:
    for cell in cells[:-1]:
        assert cell.record.metrics["auroc"] == pytest.approx(
            roc_auc_score(cell.labels, cell.values), abs=1e-12
        )


def test_only_what_varies_is_a_column(cells: Sequence[RecordedCell]) -> None:
    assert varying(cells[:1]) == ()
    assert varying(cells[:2]) == ("quantization",)
    assert varying([cells[0], cells[2]]) == ("prompt.num_few_shot",)
    assert label(cells[2], ("dataset", "prompt.num_few_shot")) == "facts num_few_shot=0"
    copy = replace(cells[0], record=replace(cells[0].record, cell="0" * 16))
    assert varying([cells[0], copy]) == ("key",)


def test_a_leaky_split_is_marked_and_a_failure_is_listed_with_its_reason(report: Report) -> None:
    table = report.files["table.md"].decode()
    leaky = [row for row in parsed_markdown(table) if row[3] == "text_baseline"]
    assert leaky[0][-1].endswith("†")
    assert table.count("† too good") == 1
    assert "†" not in "".join(row[-1] for row in parsed_markdown(table) if row[3] != "text_baseline")
    failed = report.files["failed.md"].decode()
    assert parsed_markdown(failed)[1][-1] == "RuntimeError: out of <luck> & 100% of_memory"
    assert r"out of \textless{}luck\textgreater{} \& 100\% of\_memory" in report.files["failed.tex"].decode()


def test_companion_scores_have_a_table_of_their_own(report: Report, cells: Sequence[RecordedCell]) -> None:
    rows = list(csv.DictReader(io.StringIO(report.files["other_scores.csv"].decode())))
    assert {row["score"] for row in rows if row["key"] == cells[0].record.cell} == {*cells[0].other_scores}
    assert "mean_nll" in cells[0].other_scores
    for row in rows:
        (cell,) = (cell for cell in cells if cell.record.cell == row["key"])
        assert float(row["auroc"] or "nan") == pytest.approx(
            cell.record.metrics[f"{row['score']}_auroc"], abs=0, nan_ok=True
        )


def test_the_page_has_every_table_and_every_figure_inside_it(report: Report) -> None:
    page = Page(report.files["index.html"].decode())
    assert page.outside == []
    assert page.images == {name: forms["svg"] for name, forms in report.images.items()}
    for name, forms in report.images.items():
        assert forms["svg"].startswith(b"<?xml")
        assert forms["pdf"].startswith(b"%PDF")
        assert report.files[f"figures/{name}.pdf"] == forms["pdf"]
    assert report.wide_table is not None
    assert report.cell_costs is not None
    for table in (report.wide_table, *report.others, report.cell_costs):
        assert page.cells[table.name] == [text for row in table.rows for text in row]
    assert set(report.images) == {
        "ranking",
        "accuracy_by_parameters",
        "auroc_by_parameters",
        "accuracy_by_device_hours",
        "auroc_by_device_hours",
        "roc",
        "risk_coverage",
        "reliability",
        "auroc_by_layer",
        "seconds",
        "speed",
        "memory",
    }


def test_probabilities_are_those_the_cell_was_judged_by(cells: Sequence[RecordedCell]) -> None:
    trained = [cell for cell in cells if cell.is_trained]
    assert len(trained) == 2
    for cell in trained:
        stated = probabilities(cell)
        assert stated is not None
        assert ece(cell.labels, stated) == pytest.approx(cell.record.metrics["ece"], abs=1e-12)
    assert probabilities(cells[0]) is None


def test_panels_hold_no_more_series_than_can_be_told_apart(cells: Sequence[RecordedCell]) -> None:
    many = [
        replace(cells[0], config={**cells[0].config, "seed": str(seed), "prompt.num_few_shot": str(shots)})
        for seed in range(6)
        for shots in range(3)
    ]
    divided = panels(many)
    assert sum(len(panel.series) for panel in divided) == len(many)
    assert len(divided) == 6
    assert {len(panel.series) for panel in divided} == {3}
    assert {panel.title for panel in panels(cells)} == {"facts", "facts_statements"}


def test_figures_that_could_not_be_read_are_left_out_and_said(
    report: Report, cells: Sequence[RecordedCell]
) -> None:
    many = [
        replace(
            cells[0],
            config={**cells[0].config, "prompt.num_few_shot": str(shots)},
            record=replace(cells[0].record, cell=f"{shots:016d}"),
        )
        for shots in range(200)
    ]
    left_out = {"roc", "risk_coverage", "seconds", "speed", "memory"}
    assert report.notes == []
    assert left_out <= {*report.images}
    report = make_report(many, title="t", compare=None, seed=0, resamples=20)
    assert not left_out & {*report.images}
    undetailed, note = report.notes
    assert undetailed.startswith("Of 200 cells scores of one reading are not compared")
    assert report.rules is report.compared_scores is None
    assert note.startswith("Not drawn, for 200 cells would not be read: Scores ranked")
    assert "ROC: correct against wrong" in note
    assert "Peak memory by device" in note
    assert "report.dataset" in note
    assert note in report.files["index.html"].decode()
    assert report.table is not None
    assert len(report.table.rows) == 200


def test_markdown_and_latex_survive_what_names_may_hold() -> None:
    strange = r"a|b & 50% of_x^2 {y} \z $1 #2 ~ <n>"
    table = Table("t", "c_1", ["na|me", "n"], [[strange, "1"]], 1, [{"name": strange, "n": float("nan")}])
    assert parsed_markdown(table.markdown()) == [["na|me", "n"], [strange, "1"]]
    assert list(csv.DictReader(io.StringIO(table.csv()))) == [{"name": strange, "n": ""}]
    assert not re.search(
        r"(?<!\\)[&%$#_](?![^\n]*toprule)", table.latex().split(r"\midrule")[1].split(" & 1")[0]
    )


def test_the_folder_is_replaced_whole_and_nothing_else_is(
    results: Path, cells: Sequence[RecordedCell], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "report"
    config = ReportConfig(folder=str(folder), probe="text_baseline", resamples=50)
    show_report(results, replace(config, probe="gnll", model="tiny", compare="quantization"))
    assert (folder / "comparisons.csv").exists()
    drawn = {file.stem for file in (folder / "figures").iterdir()}
    assert "roc" in drawn
    assert not [name for name in drawn if "by_parameters" in name or "layer" in name]  # nothing to draw
    printed = capsys.readouterr().out
    assert "AUROC" in printed
    assert "compared on the same examples" in printed
    assert f"of all recorded {len(cells)} cells" in " ".join(printed.split())  # a filter changes no p-value
    show_report(results, config)
    assert not (folder / "comparisons.csv").exists()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds what is no report's \(mine\.txt\)"):
        show_report(results, config)
    assert (folder / "mine.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"no index\.html"):
        show_report(results, replace(config, folder=str(tmp_path / "other")))


def test_from_python_a_report_is_frames_and_a_folder_and_prints_nothing(
    results: Path,
    report: Report,
    cells: Sequence[RecordedCell],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the same cells, made again, give the same files."""
    folder, before = tmp_path / "report", report.files
    config = ReportConfig(folder=str(folder), compare="quantization", resamples=200, family=Family.shown)
    report = report_on(results, config)
    assert capsys.readouterr() == ("", "")
    assert (folder / "index.html").read_bytes() == report.files["index.html"]
    assert {file.name for file in folder.iterdir()} == {name.partition("/")[0] for name in report.files}
    known = {name for name in before if name != "index.html" and not name.startswith("failed.")}
    assert report.files == {name: before[name] for name in known} | {"index.html": report.files["index.html"]}
    undrawn = replace(report, charts=[])
    assert replace(undrawn).files == undrawn.files
    table = report.frames["table"].set_index("key")
    for cell in cells:
        assert table.loc[cell.record.cell, "auroc"] == pytest.approx(
            cell.record.metrics["auroc"], nan_ok=True
        )
        assert table.loc[cell.record.cell, "device_map"] == "auto"
    (row,) = report.frames["comparisons"].to_dict("records")
    assert (row["first"], row["second"], row["accuracy_of"]) == ("nf4", "none", "answers")
    assert row["accuracy_value"] == pytest.approx(
        cells[1].record.metrics["accuracy"] - cells[0].record.metrics["accuracy"]
    )
    assert (row["first_cell"], row["second_cell"]) == (cells[1].record.cell, cells[0].record.cell)
    assert "recorded" not in next(each.caption for each in report.tables if each.name == "comparisons")


def test_an_accuracy_says_what_it_is_of(report: Report, cells: Sequence[RecordedCell]) -> None:
    """Answers and a probe's calls are two quantities: two columns, and a column of the file says which."""
    header, *rows = parsed_markdown(report.files["table.md"].decode())
    at = {name: header.index(name) for name in ("answer accuracy", "probe accuracy")}
    raw = list(csv.DictReader(io.StringIO(report.files["table.csv"].decode())))
    for row, cell, line in zip(rows, cells, raw, strict=True):
        assert (row[at["answer accuracy"]] == "-") is cell.is_trained
        assert (row[at["probe accuracy"]] == "-") is not cell.is_trained
        assert line["accuracy_of"] == ("the probe's calls" if cell.is_trained else "answers")
    for table in (report.table, report.wide_table, *report.others):
        assert table is not None
        assert len({*table.columns}) == len(table.columns)


def test_filters(results: Path, cells: Sequence[RecordedCell]) -> None:
    assert select_cells(results, ReportConfig()) == list(cells)
    assert len(select_cells(results, ReportConfig(probe=["logistic", "text_baseline"]))) == 2
    assert len(select_cells(results, ReportConfig(model="tiny", dataset="facts"))) == 4
    assert len(select_cells(results, ReportConfig(device_map="auto"))) == len(cells)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (ReportConfig(probe="gnl"), "report.probe=gnl matches no recorded cell; did you mean 'gnll'?"),
        (ReportConfig(sweep="x"), "report.sweep=x is no sweep"),
        (ReportConfig(device_map="cpu"), "report.device_map=cpu matches no recorded cell"),
        (ReportConfig(compare="quantisation"), "did you mean 'quantization'?"),
        (ReportConfig(compare="dataset.seed"), "all 7 recorded cells have the same"),
    ],
)
def test_what_matches_nothing_is_refused_in_one_sentence(
    results: Path, tmp_path: Path, config: ReportConfig, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as raised:
        show_report(results, replace(config, folder=str(tmp_path / "report")))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report").exists()


def test_nothing_recorded_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no recorded cell"):
        select_cells(tmp_path, ReportConfig())


def test_device_hours_are_measured(cells: Sequence[RecordedCell]) -> None:
    metrics = cells[0].record.metrics
    assert cells[0].device_hours == pytest.approx((metrics["load_s"] + metrics["read_s"]) / 3600)
    on_four = replace(cells[0], record=replace(cells[0].record, plan={**cells[0].record.plan, "gpus": 4}))
    assert on_four.device_hours == pytest.approx(4 * np.float64(cells[0].device_hours))


@pytest.mark.slow
def test_of_how_many_answers_a_ranking_is_stands_below_it(recorder: Recorder) -> None:
    some = {"mean_nll_auroc": f"of the 3 of 4 {OF_SOME} (25% have none)"}
    lacking = {f"auroc{end}": math.nan for end in ("", "_ci_low", "_ci_high")}
    recorder(
        "probe=p_true",
        metrics={
            "n_unscored": 1,
            "mean_nll_auroc": 0.5,
            **{f"perplexity_{name}": math.nan for name in lacking},
        },
        notes={**some, "perplexity_auroc": NO_SCORES},
        others={"mean_nll": [1.0, 2.0, 3.0, math.nan], "perplexity": [math.nan] * 4},
    )
    recorder("probe=verbalized", metrics={"n_unscored": 4, **lacking}, notes={"auroc": NO_SCORES})
    cells, others = cells_table(recorder.cells), other_scores_table(recorder.cells)
    assert others is not None
    assert [row[-1] for row in cells.rows] == ["0.750", f"undefined: {NO_SCORES}"]
    assert [note.partition(": ")[2] for note in cells.notes] == [
        "of the 3 of 4 answers that have a score: p_true.",
        "of the 0 of 4 answers that have a score: verbalized.",
    ]
    assert others.rows[1][-1] == f"undefined: {NO_SCORES}"
    assert others.notes == [f"AUROC {some['mean_nll_auroc']}: p_true mean nll."]


def test_a_cell_whose_folder_was_copied_is_in_the_report_once(recorder: Recorder) -> None:
    recorder("probe=gnll", metrics={"auroc": 0.8, "n": 4})
    (folder,) = (cell.folder for cell in recorder.cells)
    shutil.copytree(folder, folder.with_name("before"))
    said: list[str] = []
    assert [cell.folder for cell in select_cells(recorder.folder, ReportConfig(), said.append)] == [folder]
    assert len(said) == 1
    assert said[0].startswith(f"{folder.with_name('before')} is another record of the cell {folder.name}")
    folder.rename(folder.with_name("after"))
    shutil.rmtree(folder.with_name("before"))
    assert [cell.folder.name for cell in recorder.cells] == ["after"]  # a renamed one alone is the cell
