"""What MLflow is told: names, texts and limits, without MLflow."""

from __future__ import annotations

import base64
import json
import math
import zlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from probegrid.tracking import mlflow_content as content
from probegrid.tracking.record import CellError, CellRecord


def test_params_are_the_choices_and_the_flattened_config(record: CellRecord) -> None:
    config = {"dataset": {"num_samples": 400, "path": None}, "stop": ["\n"], "odd@[key]": True, "empty": {}}
    assert content.params(record, config) == dict(record.choices) | {
        "dataset.num_samples": "400",
        "dataset.path": "null",
        "stop": '["\\n"]',
        "odd__key_": "true",
        "empty": "{}",
    }


def test_long_texts_are_cut(record: CellRecord) -> None:
    failed = replace(record, error=CellError("E", "x" * 9000, ""))
    assert len(content.tags(failed)["probegrid.error"]) == 8000
    assert len(content.params(record, {"long": "x" * 7000})["long"]) == 6000


@given(n_points=st.integers(0, 2000), n_params=st.integers(0, 350))
def test_calls_hold_everything_once_within_the_limits(n_points: int, n_params: int) -> None:
    points = [content.Point("loss", 0.0, step) for step in range(n_points)]
    params = {str(number): "x" for number in range(n_params)}
    calls = list(content.calls(points, params))
    assert [point for call, _ in calls for point in call] == points
    assert {name: value for _, call in calls for name, value in call.items()} == params
    assert all(len(call) + len(named) <= 1000 and len(named) <= 100 for call, named in calls)
    assert len(calls) == max(math.ceil(n_points / 900), math.ceil(n_params / 100))


def test_metrics_are_described_with_unit_and_direction() -> None:
    note = content.metrics_note(["auroc_ci_low", "peak_gpu_gb_0", "aurc", "unheard_of"])
    rows = note.splitlines()[2:]
    assert len(rows) == 3
    assert rows[0].startswith("| auroc_ci_low | lower end of the 95% interval")
    assert rows[1].endswith("| GB | lower |")
    of_experiment = content.experiment_note("1")
    assert len(of_experiment) <= content.MAX_TAG_LENGTH
    assert (
        of_experiment.endswith("|\nEvery run describes its own metrics.") or "|\n\nEvery run" in of_experiment
    )
    assert "| auroc |" in of_experiment


def test_times_are_milliseconds(record: CellRecord) -> None:
    assert content.times_ms(record) == (1772359200000, 1772359212500)


def test_a_note_begins_with_the_numbers_and_a_failure_with_its_reason(record: CellRecord) -> None:
    ends = {"accuracy_ci_low": 0.5776, "accuracy_ci_high": 0.672}
    note = content.cell_note(replace(record, metrics=record.metrics | ends))
    assert note.startswith("### answer accuracy 0.625 [0.578, 0.672], AUROC 0.875 on 400 examples\n")
    assert "probe **gnll**" in note
    assert "the score is no probability" in note
    assert "_ci_low" not in note
    failed = replace(record, metrics={}, error=CellError("ValueError", "too wide", ""))
    assert content.cell_note(failed).startswith("### failed: ValueError: too wide")


def test_a_sweeps_note_is_cut_at_a_line_within_the_limit() -> None:
    short = content.sweep_note(["probegrid", "-m"], ["two cells\n\n| a |\n| --- |\n| 1 |\n"])
    assert short.startswith("`probegrid -m`\n\ntwo cells\n\n| a |")
    row = f"| {'x' * 90} |"
    long = content.sweep_note(["probegrid"], ["\n".join([row] * 200)])
    assert len(long) <= content.MAX_TAG_LENGTH
    assert long.count(row) > 80
    assert set(long.splitlines()) == {"`probegrid`", "", row, short.splitlines()[-1]}


def test_the_view_of_an_experiment_shows_the_choices_and_the_intervals() -> None:
    view = json.loads(content.experiment_tags()[f"mlflow.sharedViewState.{content.VIEW_KEY}"])
    kind, _, packed = view["state"].partition(";")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert kind == "deflate"
    assert {"params.`probe`", "metrics.`auroc`", "metrics.`auroc_ci_low`"} <= {*state["selectedColumns"]}
    assert f"viewStateShareKey={content.VIEW_KEY}" in content.experiment_note("7")
    assert "#/experiments/7/runs" in content.experiment_note("7")
