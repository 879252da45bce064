"""What MLflow is told: names, texts and limits, without MLflow."""

from __future__ import annotations

import math
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
    assert len(content.experiment_note("1")) < content.MAX_TAG_LENGTH


def test_times_are_milliseconds(record: CellRecord) -> None:
    assert content.times_ms(record) == (1772359200000, 1772359212500)
