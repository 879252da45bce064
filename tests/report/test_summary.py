"""A cell in a few texts: by its own record, whatever its probe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from recorder import Recorder

from probegrid.report.cell_tables import cells_table
from probegrid.report.cells import RecordedCell
from probegrid.report.summary import ALL_METRICS, numbers
from probegrid.tracking.record import CellError, Status


@pytest.mark.slow
def test_an_answer_probes_numbers_are_its_records(cells: Sequence[RecordedCell]) -> None:
    metrics = cells[0].record.metrics
    size, accuracy, auroc, seconds = numbers(cells[0].record)
    assert size == "n 60"
    assert accuracy == (
        f"answer accuracy {metrics['accuracy']:.3f} [{metrics['accuracy_ci_low']:.3f}, "
        f"{metrics['accuracy_ci_high']:.3f}]"
    )
    assert auroc.startswith(f"AUROC {metrics['auroc']:.3f} [")
    assert seconds.startswith(f"load {metrics['load_s']:.1f} s, read {metrics['read_s']:.1f} s, ")
    assert seconds.endswith(f"{cells[0].record.provenance.seconds:.1f} s in all")


@pytest.mark.slow
def test_a_trained_probe_has_its_layer_and_its_own_accuracy(cells: Sequence[RecordedCell]) -> None:
    record = cells[4].record
    size, accuracy, *_ = numbers(record)
    assert size == f"n {record.metrics['n']:.0f}, layer {record.metrics['layer']:.0f}"
    assert accuracy.startswith(f"probe accuracy {record.metrics['accuracy']:.3f} [")
    more = " ".join(numbers(record, ALL_METRICS))
    assert "probe F1" in more
    assert "AUROC of text" in more
    assert "AUROC of control" in more
    noted = replace(record, notes={"accuracy": "few examples"})
    assert not [text for text in numbers(noted) if "few examples" in text]
    (accuracy,) = [text for text in numbers(noted, with_notes=True) if "few examples" in text]
    assert accuracy.startswith("probe accuracy")


def test_an_ece_is_told_with_what_chance_makes_of_it(recorder: Recorder) -> None:
    ece = {"ece": 0.069, "ece_ci_low": 0.0, "ece_ci_high": 0.079}
    beside = {"ece_noise_floor": 0.047, "ece_debiased": 0.03, "calibration_p": 0.037}
    recorder("probe=p_true", metrics={**ece, **beside})
    (cell,) = recorder.cells
    said = "ECE 0.069 [0.000, 0.079] (noise floor 0.047, debiased 0.030, p of calibration 0.037)"
    assert said in numbers(cell.record, ALL_METRICS, with_notes=True)
    table = cells_table([cell], is_wide=True)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["ECE noise floor"], row["ECE debiased"], row["p of calibration"]) == (
        "0.047",
        "0.030",
        "0.037",
    )


def test_other_datasets_come_by_name(recorder: Recorder) -> None:
    ends = {"": 0.9, "_ci_low": 0.85, "_ci_high": 0.95}
    transfer = {f"transfer_auroc_cities{end}": value for end, value in ends.items()}
    recorder("probe=logistic", metrics={"precision": 0.5, "layer": 3, **transfer})
    texts = numbers(recorder.cells[0].record)
    assert texts[0] == "n 4, layer 3"
    assert "AUROC on cities 0.900 [0.850, 0.950]" in texts
    assert sum("cities" in text for text in texts) == 1


@pytest.mark.slow
def test_what_is_no_number_says_why_and_a_leak_is_said(cells: Sequence[RecordedCell]) -> None:
    assert cells[-1].metric("accuracy") == 0  # the random model is never right
    assert [text for text in numbers(cells[-1].record) if text.startswith("AUROC undefined: ")]
    leaky = next(cell for cell in cells if cell.leakage)
    texts = numbers(leaky.record)
    assert f"leakage: {leaky.leakage}" in texts
    assert not [text for text in texts if "tokens/s" in text]  # the text baseline reads no model
    assert texts[-1].endswith("s in all")


def test_a_failed_cell_is_its_reason(cells: Sequence[RecordedCell]) -> None:
    error = CellError("RuntimeError", "out of memory\nmore of it", "Traceback")
    failed = replace(cells[0].record, status=Status.failed, metrics={}, error=error)
    assert numbers(failed) == ["RuntimeError: out of memory"]


def test_it_costs_no_heavy_import() -> None:
    heavy = ("torch", "numpy", "pandas", "mlflow", "sklearn")
    code = f"import sys, probegrid.report.summary; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_a_note_that_many_numbers_have_is_said_once(recorder: Recorder) -> None:
    values = {"auprc": 0.7, "aurc": 0.5, "prr": 0.4, "brier": 0.2}
    recorder("probe=gnll", metrics=values, notes={"auprc": "few", "aurc": "few", "brier": "few too"})
    (cell,) = recorder.cells
    said = numbers(cell.record, tuple(values), with_notes=True)[1:-1]  # without the size and the seconds
    assert said == ["AUPRC 0.700 (few)", "AURC 0.500 (as above)", "PRR 0.400", "Brier 0.200 (few too)"]
