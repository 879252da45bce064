"""What cells cost, compared: which pairs, every number and ratio, and what a cell did not measure itself."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recorder import Recorder

from probegrid.cell.run import Result
from probegrid.report.cells import RecordedCell, load_cells
from probegrid.report.charts import Bar, Chart, ChartPanel, Curve, Mark
from probegrid.report.columns import label, varying
from probegrid.report.cost_figures import cost_charts
from probegrid.report.cost_table import cell_costs_table, costs_table
from probegrid.report.costs import CostContrasts, contrast_costs, costs_of
from probegrid.report.drawing import _figure, draw, row_shares
from probegrid.report.panels import panels
from probegrid.report.report import make_report
from probegrid.report.seeds import over_seeds
from probegrid.report.tables import amount_text, latex_text, ratio_text

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

H100, TI = "NVIDIA H100", "NVIDIA GTX 1080 Ti"
ON_TWO = {"load_s": 20.0, "read_s": 10.0, "tokens_per_s": 400.0, "peak_ram_gb": 4.0, "peak_gpu_gb_0": 40.0}
ON_TWO |= {"peak_gpu_gb_1": 38.0}
ON_FOUR = {"load_s": 90.0, "read_s": 45.0, "tokens_per_s": 80.0, "peak_ram_gb": 64.0}
ON_FOUR |= {f"peak_gpu_gb_{card}": 10.0 - card / 2 for card in range(4)}


def place(recorder: Recorder, *overrides: str) -> None:
    """The same questions on two large cards and on four small ones, with blocks in CPU memory."""
    recorder("device_map=2xh100", *overrides, metrics=ON_TWO, gpus=[H100] * 2, seconds=40)
    recorder("device_map=4x11gb", *overrides, metrics=ON_FOUR, gpus=[TI] * 4, seconds=150, host="node-2")


def compared(recorder: Recorder, group: str) -> CostContrasts:
    return contrast_costs(recorder.cells, group)


def shown(contrasts: CostContrasts) -> list[dict[str, str]]:
    table = costs_table(contrasts)
    assert table is not None
    return [dict(zip(table.columns[2:], row[2:], strict=True)) for row in table.rows]


def test_a_device_map_costs_seconds_and_memory(recorder: Recorder) -> None:
    place(recorder)
    (one,) = compared(recorder, "device_map").made
    assert (one.pair.first_name, one.pair.second_name) == ("4x11gb", "2xh100")  # more cards against fewer
    assert one.ratio("load_s") == 4.5
    assert one.ratio("tokens_per_s") == 0.2
    assert one.first.values["peak_gpu_gb_sum"] == 10 + 9.5 + 9 + 8.5
    assert one.second.values["peak_gpu_gb_most"] == 40
    assert one.ratio("peak_gpu_gb_3") is None  # there are two
    assert shown(compared(recorder, "device_map")) == [
        {
            "speed-up": "0.22x",  # of the first: four small cards take 4.5 times as long
            "load s": "90 / 20 = 4.50x",
            "read s": "45 / 10 = 4.50x",
            "tokens/s": "80 / 400 = 0.20x",
            "peak RAM GB": "64 / 4 = 16.00x",
            "peak GPU GB, sum": "37 / 78 = 0.47x",
            "peak GPU GB, most": "10 / 40 = 0.25x",
        }
    ]


def test_every_form_of_a_report_has_the_costs(recorder: Recorder) -> None:
    place(recorder)
    report = make_report(recorder.cells, title="t", compare="device_map", seed=0, resamples=20)
    files = {name: content.decode() for name, content in report.files.items() if not name.endswith("pdf")}
    (raw,) = csv.DictReader(io.StringIO(files["costs.csv"]))
    assert (raw["first"], raw["second"]) == ("4x11gb", "2xh100")
    assert [float(raw[f"peak_gpu_gb_{card}_first"]) for card in range(4)] == [10, 9.5, 9, 8.5]
    assert raw["peak_gpu_gb_3_second"] == raw["peak_gpu_gb_3_ratio"] == ""
    assert float(raw["read_s_ratio"]) == 4.5
    assert (raw["machine_first"], raw["machine_second"]) == (TI, H100)
    for name in ("costs.md", "index.html"):
        assert "37 / 78 = 0.47x" in files[name]
        assert f"4x11gb was read on {TI}, 2xh100 on {H100}" in files[name]
    assert latex_text("37 / 78 = 0.47x") in files["costs.tex"]
    assert "4x11gb" in files["cell_costs.md"]
    frame = report.frames["costs"]
    assert frame["load_s_ratio"].tolist() == [4.5]
    assert {"comparisons", "costs", "cell_costs", "table"} == {*report.frames}
    assert "same text" in report.others[0].columns  # agreement is shown, though all answers agree
    assert report.others[0].rows[0][-3] == "100.0%"
    assert {"seconds", "memory", "speed"} <= {*report.images}


def test_memory_is_drawn_by_device(recorder: Recorder) -> None:
    place(recorder)
    (panel,) = next(
        chart for chart in cost_charts(over_seeds(recorder.cells)) if chart.name == "memory"
    ).panels
    widths = [bar.values.tolist() for bar in panel.bars]
    assert widths == [[4, 64], [40, 10], [38, 9.5], [0, 9], [0, 8.5]]  # the process, then each GPU
    assert panel.names == ["2xh100", "4x11gb"]
    drawn = draw(Chart("memory", "GB", "", [panel]))["svg"].decode()
    assert {">82<", ">101<", ">2xh100<"} <= set(re.findall(">[^<>]+<", drawn))  # the sums, and the names


@pytest.mark.parametrize("seconds", [(0.31, 0.33, 0.54), (0.9, 40.0), (0.002, 7000.0)])
def test_seconds_on_a_log_axis_have_plain_numbers_that_do_not_touch(seconds: tuple[float, ...]) -> None:
    points = Curve("", np.array(seconds), np.array(seconds), mark=Mark.points)
    (axes,) = _figure(
        Chart("auroc_by_device_hours", "s", "AUROC", [ChartPanel("", [points])], is_log=True)
    ).axes
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    marks = [mark for mark in axes.get_xticks() if low <= mark <= high]
    drawn = [text for text in axes.get_xticklabels(which="both") if low <= text.get_position()[0] <= high]
    assert len(drawn) == len(marks) >= 3
    assert [float(text.get_text().replace(",", "")) for text in drawn] == pytest.approx(marks)
    boxes = [text.get_window_extent() for text in drawn]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


def test_the_rows_of_a_drawn_figure_are_told() -> None:
    bars = [
        ChartPanel(str(place), names=["a"] * (1 + 5 * (place > 2)), bars=[Bar("", np.ones(1), "red")])
        for place in range(4)
    ]
    first, second = row_shares(Chart("memory", "GB", "", bars))
    assert first + second == pytest.approx(1)
    assert second > 1.5 * first  # six bars below one


def test_like_stands_beside_like(recorder: Recorder) -> None:
    """Bars of one panel read the same questions for the same probe; what was found in the store is hatched."""
    for dataset in ("facts", "facts_rare"):
        for method in ("none", "nf4"):
            recorder(f"dataset={dataset}", f"quantization={method}", metrics=ON_TWO, gpus=[H100] * 2)
    seconds = cost_charts(over_seeds(recorder.cells))[0]
    assert [(panel.title, list(panel.names)) for panel in seconds.panels] == [
        ("facts", ["none", "nf4"]),
        ("facts_rare", ["none", "nf4"]),
    ]


def test_a_price_is_of_the_hours_that_gpus_were_held(recorder: Recorder) -> None:
    place(recorder)
    recorder("device_map=cpu", metrics=ON_TWO)
    table = cell_costs_table(recorder.cells, price_per_gpu_hour=2.5)
    assert table is not None
    assert list(table.columns[-2:]) == ["GPU-hours", "price"]
    for cell, row, record in zip(recorder.cells, table.rows, table.records, strict=True):
        if not cell.gpus:
            assert list(row[-2:]) == ["-", "-"]
            assert record["price"] is None
            continue
        hours = (cell.record.metrics["load_s"] + cell.record.metrics["read_s"]) * cell.gpus / 3600
        assert record["gpu_hours"] == pytest.approx(hours)
        assert record["price"] == pytest.approx(2.5 * hours)
    assert "2.5" in table.caption


def test_a_model_that_was_in_memory_has_no_time_of_loading(recorder: Recorder) -> None:
    for method, load_s in (("none", 3.0), ("nf4", 0.0)):
        recorder(
            f"quantization={method}", metrics=ON_TWO | {"load_s": load_s, "read_s": 5 + load_s}, gpus=[H100]
        )
    (one,) = compared(recorder, "quantization").made
    assert one.ratio("load_s") is None
    table = costs_table(compared(recorder, "quantization"))
    assert table is not None
    assert table.rows[0][3:5] == ["- / 3", "5 / 8 = 0.62x"]
    assert table.rows[0][6] == "4 / 4 = 1.00x"  # the pack's process had it in memory
    assert [note for note in table.notes if note.startswith("- the model was not loaded")]
    assert table.records[0]["load_s_first"] is None
    assert "inf" not in table.csv()


def test_a_reading_from_the_store_is_said_to_be(recorder: Recorder) -> None:
    """Two cells on one reading: the second has the first's seconds to the last bit, and no model in memory."""
    for method in ("none", "nf4"):
        recorder(f"quantization={method}", metrics=ON_TWO | {"read_s": 7.0 + len(method)}, gpus=[H100])
        stored = {"read_s": 7.0 + len(method), "load_s": 0.0, "peak_gpu_gb_0": 0.0, "peak_gpu_gb_1": 0.0}
        recorder(f"quantization={method}", "seed=1", metrics=ON_TWO | stored)
    own, shared = compared(recorder, "quantization").made
    assert not (own.first.elsewhere or own.second.elsewhere)
    assert shared.first.elsewhere
    assert shared.second.elsewhere
    assert "peak_gpu_gb_0" not in shared.first.values
    table = costs_table(compared(recorder, "quantization"))
    assert table is not None
    columns = list(table.columns)
    assert [row[columns.index("read s")] for row in table.rows] == ["10 / 11 = 0.91x", "10 ‡ / 11 ‡ = 0.91x"]
    assert table.rows[1][columns.index("peak RAM GB")] == "-"
    assert [note for note in table.notes if note.startswith("‡ the reading, or part of it, was not timed")]
    assert r"\textsuperscript{\textdaggerdbl}" in table.latex()


@pytest.mark.parametrize(
    ("metrics", "notes"),
    [
        ({"read_s": 50.0, "load_s": 0.0}, {}),  # longer than the cell itself
        ({"read_s": 5.0, "load_s": 0.0}, {"read_s": "from the store"}),
    ],
)
def test_a_reading_whose_maker_is_not_at_hand_is_known_by_its_seconds_or_its_note(
    recorder: Recorder, metrics: dict[str, float], notes: dict[str, str]
) -> None:
    recorder(metrics=ON_TWO | metrics, seconds=9.0, notes=notes, gpus=[H100])
    (costs,) = costs_of(recorder.cells).values()
    assert costs.elsewhere
    assert {*costs.values} == {"read_s", "tokens_per_s"}


def test_an_interrupted_reading_still_has_its_memory(recorder: Recorder) -> None:
    """It loaded the model for what was missing; its seconds are of both runs."""
    recorder(metrics=ON_TWO | {"read_s": 50.0}, seconds=30.0, gpus=[H100])
    (costs,) = costs_of(recorder.cells).values()
    assert costs.elsewhere
    assert costs.values["peak_gpu_gb_0"] == 40


def test_only_like_is_compared_with_like(recorder: Recorder) -> None:
    recorder("quantization=none", metrics=ON_TWO)
    recorder("quantization=nf4", metrics=ON_TWO, answers=("paris", "rome"))
    recorder("quantization=none", "seed=1", metrics=ON_TWO)
    recorder("quantization=nf4", "seed=1", metrics=ON_TWO, prompt="Another question: {}")
    found = compared(recorder, "quantization")
    assert found.made == []
    assert [unpaired.reason for unpaired in found.not_made] == [
        "2 and 4 examples were read, 2 of them by both",
        "other prompts were read",
    ]
    table = costs_table(found)
    assert table is not None
    assert "Not compared: nf4 seed=0 and none seed=0: 2 and 4 examples" in table.markdown()


def test_models_read_the_same_questions_each_in_its_own_template(recorder: Recorder) -> None:
    recorder("model=llama1b", metrics=ON_TWO)
    recorder("model=llama8b", metrics=ON_TWO, prompt="<user>Question: {}<assistant>")
    assert len(compared(recorder, "model").made) == 1


def test_what_reads_no_model_costs_nothing_to_compare(recorder: Recorder) -> None:
    for method in ("none", "nf4"):
        recorder(f"quantization={method}", metrics={"load_s": 0.0, "peak_ram_gb": 0.5})
    found = compared(recorder, "quantization")
    assert [unpaired.reason for unpaired in found.not_made] == ["no model is read"]
    assert cell_costs_table(recorder.cells) is None
    assert not [chart.name for chart in cost_charts(over_seeds(recorder.cells)) if chart.panels]


def test_probes_are_not_compared_in_cost(recorder: Recorder) -> None:
    """They read other things; what each took stands in the table of cells."""
    for probe in ("gnll", "mass_mean"):
        recorder(f"probe={probe}", metrics=ON_TWO)
    report = make_report(recorder.cells, title="t", compare="probe", seed=0, resamples=20)
    assert "costs" not in report.frames
    assert "cell_costs" in report.frames


def test_a_cell_without_a_counterpart_on_its_device_map_is_paired_across_them(recorder: Recorder) -> None:
    """70B in bf16 does not fit where 4 bits do: the answers compare all the same, the costs do not."""
    recorder("quantization=none", "device_map=2xh100", metrics=ON_TWO, gpus=[H100] * 2)
    recorder("quantization=nf4", "device_map=4x11gb", metrics=ON_FOUR, gpus=[TI] * 4)
    report = make_report(recorder.cells, title="t", compare="quantization", seed=0, resamples=20)
    (row,) = report.frames["comparisons"].to_dict("records")
    assert (row["first"], row["second"]) == ("nf4 on 4x11gb", "none on 2xh100")
    found = compared(recorder, "quantization")
    assert [unpaired.reason for unpaired in found.not_made] == ["they differ in device_map too"]

    recorder("quantization=nf4", "device_map=2xh100", metrics=ON_TWO, gpus=[H100] * 2)  # now there is one
    found = compared(recorder, "quantization")
    (one,) = found.made
    assert (one.pair.first_name, one.pair.second_name) == ("nf4", "none")
    assert one.pair.same_place
    report = make_report(recorder.cells, title="t", compare="quantization", seed=0, resamples=20)
    assert len(report.frames["comparisons"]) == 1
    assert "Not compared: nf4 4x11gb: no other cell" in report.others[0].markdown()


def test_the_cpu_alone_stands_against_the_gpus(recorder: Recorder) -> None:
    for device_map, gpus in (("cpu", 0), ("4x11gb", 4), ("single", 1)):
        recorder(f"device_map={device_map}", metrics=ON_TWO, gpus=[TI] * gpus)
    names = [(one.pair.first_name, one.pair.second_name) for one in compared(recorder, "device_map").made]
    assert names == [("4x11gb", "single"), ("cpu", "single"), ("cpu", "4x11gb")]


def test_no_label_twice_where_the_device_map_alone_differs(recorder: Recorder) -> None:
    """By its name, or by its fields under one name."""
    for overrides in (["device_map=cpu"], ["device_map=single"], [], ["device_map.overhead_gb=2"]):
        recorder(*overrides, metrics=ON_TWO)
    cells = recorder.cells
    columns = varying(cells)
    assert columns == ("device_map", "device_map.overhead_gb")
    names = [label(cell, columns) for cell in cells]
    assert len({*names}) == 4
    assert [len(series.cells) for panel in panels(cells) for series in panel.series] == [1, 1, 1, 1]
    assert len({series.name for panel in panels(cells) for series in panel.series}) == 4
    assert len({cell.record.name for cell in cells}) == 4
    for chart in cost_charts(over_seeds(cells)):
        assert [len({*panel.names}) for panel in chart.panels] == [4]


def test_mixed_versions_are_said(recorder: Recorder) -> None:
    for version in ("2.6.0", "2.7.0"):
        recorder(f"seed={version[2]}", metrics=ON_TWO, versions={"torch": version, "numpy": "2.0"})
    report = make_report(recorder.cells, title="t", compare=None, seed=0, resamples=20)
    assert report.table is not None
    assert report.table.notes == ["The cells were made with different versions: torch 2.6.0, 2.7.0."]


def test_measurements_have_three_digits() -> None:
    assert [amount_text(value) for value in (0.12345, 9.996, 999.4, 999.6, 15517.2)] == [
        "0.123",
        "10",
        "999",
        "1,000",
        "15,517",
    ]
    assert [ratio_text(value) for value in (0.0123, 1.0, 250)] == ["0.0123x", "1.00x", "250x"]


def test_real_cells_on_two_device_maps(run: Callable[..., Result]) -> None:
    few = ("dataset.num_samples=20", "decoding.max_new_tokens=4", "prompt.num_few_shot=0")
    folders = [run(*few, f"device_map={device_map}").folder for device_map in ("auto", "cpu")]
    cells = load_cells(folders[0].parent)
    assert {cell.value("device_map") for cell in cells} == {"auto", "cpu"}
    report = make_report(cells, title="t", compare="device_map", seed=0, resamples=20)
    (row,) = report.frames["costs"].to_dict("records")
    by_place: dict[str, RecordedCell] = {cell.value("device_map"): cell for cell in cells}
    ratio = by_place["cpu"].record.metrics["read_s"] / by_place["auto"].record.metrics["read_s"]
    assert row["read_s_ratio"] == pytest.approx(ratio)
    assert row["load_s_first"] > 0
    assert report.frames["comparisons"]["same_text"].tolist() == [1.0]
    assert Path(folders[0]) != Path(folders[1])
