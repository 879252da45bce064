"""What is written is what is read, nothing secret is in it, and what is damaged is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from other_user import another_user, only_root

from probegrid.errors import StoreError
from probegrid.tracking.integrity import verify
from probegrid.tracking.record import (
    CellError,
    CellRecord,
    Status,
    is_done,
    read,
    read_config,
    recorded_keys,
    write,
)


def without_nan(record: CellRecord) -> CellRecord:
    return replace(record, metrics={name: value for name, value in record.metrics.items() if value == value})


def test_a_record_comes_back_as_it_went(tmp_path: Path, record: CellRecord) -> None:
    failed = replace(
        without_nan(record),
        status=Status.failed,
        error=CellError("RuntimeError", "out of memory", "Traceback ..."),
        sweep="friday",
    )
    write(tmp_path, failed, {})
    assert read(tmp_path, record.cell) == failed


def test_the_folder_holds_what_it_should(write_cell: Callable[..., Path]) -> None:
    folder = write_cell()
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"config.yaml", "result.json", "scores.parquet", "figures/roc.png"}
    assert pyarrow.parquet.read_table(folder / "scores.parquet").column_names == ["example_id", "score"]
    result = json.loads((folder / "result.json").read_text())
    assert list(result) == [
        "cell", "name", "status", "choices", "provenance", "metrics", "notes", "steps", "plan", "versions",
        "error", "sweep", "readers", "engine", "checksums",
    ]  # fmt: skip
    assert set(result["checksums"]) == names
    assert result["status"] == "done"
    assert result["error"] is None
    assert result["steps"]["train_loss"] == [[0, 0.7], [1, 0.5]]
    assert math.isnan(result["metrics"]["ece"])
    assert yaml.safe_load((folder / "config.yaml").read_text())["prompt"]["stop"] == ["\n", "Question:"]


def test_nothing_secret_is_written(
    tmp_path: Path, record: CellRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct-horse")
    error = CellError(
        "OSError", "http://joe:battery9@host", "token=staple77\nhf_AAAABBBBCCCCDDDD: correct-horse"
    )
    config = {
        "tracking": {"uri": "http://joe:battery9@host", "password": "staple77"},
        "note": "correct-horse",
    }
    folder = write(tmp_path, replace(record, error=error, plan=config), config)
    written = b"".join(path.read_bytes() for path in folder.iterdir()).decode()
    for secret in ("correct-horse", "battery9", "staple77", "hf_AAAA"):
        assert secret not in written
    assert "joe" in written


def test_a_done_record_replaces_a_failed_one(tmp_path: Path, write_cell: Callable[..., Path]) -> None:
    folder = write_cell(status=Status.failed, error=CellError("E", "m", "t"))
    assert not is_done(folder.parent, folder.name)
    write_cell()
    assert is_done(folder.parent, folder.name)
    assert recorded_keys(folder.parent) == [folder.name]


def test_what_is_not_there_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "someone's folder").mkdir()
    (tmp_path / "a file").touch()
    assert read(tmp_path, "someone's folder") is None
    assert read(tmp_path / "nowhere", "key") is None
    assert not is_done(tmp_path, "a file")
    assert recorded_keys(tmp_path) == []


def test_keys_are_listed_in_order(tmp_path: Path, record: CellRecord) -> None:
    for key in ("b", "a"):
        write(tmp_path, replace(without_nan(record), cell=key), {})
    assert recorded_keys(tmp_path) == ["a", "b"]


@only_root
def test_a_cell_that_may_not_be_read_is_not_passed_over(tmp_path: Path, record: CellRecord) -> None:
    keys = ["0" * 16, "1" * 16, "2" * 16]
    for key in keys:
        write(tmp_path / "results", replace(without_nan(record), cell=key), {})
    (tmp_path / "results" / "lost+found").mkdir(mode=0o700)
    (tmp_path / "results" / keys[0]).chmod(0o700)
    with another_user(tmp_path / "results"):
        assert recorded_keys(tmp_path / "results") == keys
        with pytest.raises(StoreError, match=r"cannot read .* no permission, it belongs to root"):
            read(tmp_path / "results", keys[0])
        found, lines = verify(tmp_path / "results")
    assert (found, len(lines)) == (3, 1)
    (tmp_path / "results").chmod(0o700)
    with (
        another_user(tmp_path / "results"),
        pytest.raises(StoreError, match="no permission, it belongs to root"),
    ):
        recorded_keys(tmp_path / "results")


@only_root
def test_damage_that_may_not_be_moved_is_named_with_all_other(tmp_path: Path, record: CellRecord) -> None:
    for key in ("0" * 16, "1" * 16):
        folder = write(tmp_path / "results", replace(without_nan(record), cell=key), {})
        (folder / "config.yaml").write_text("a: 1")
    with another_user(tmp_path / "results"):
        found, lines = verify(tmp_path / "results")
    assert found == len(lines) == 2
    assert all(
        "is damaged and cannot be set aside: no permission, it belongs to root" in line for line in lines
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"cell": "x"}', "\xff", None], ids=repr)
def test_a_damaged_record_is_named(write_cell: Callable[..., Path], text: str | None) -> None:
    folder = write_cell()
    path = folder / "result.json"
    if text is None:
        result = json.loads(path.read_text())
        text = json.dumps(result | {"status": "perhaps"})
    path.write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match=r"result\.json is damaged; remove the folder .* run the cell again"):
        read(folder.parent, folder.name)


@pytest.mark.parametrize("text", ["a: [", "- a", ""])
def test_a_damaged_config_is_named(write_cell: Callable[..., Path], text: str) -> None:
    folder = write_cell()
    assert read_config(folder.parent, folder.name)["dataset"] == {"num_samples": 400, "path": None}
    (folder / "config.yaml").write_text(text)
    with pytest.raises(StoreError, match=r"config\.yaml is damaged"):
        read_config(folder.parent, folder.name)


def test_a_results_folder_that_is_a_file_is_one_sentence(tmp_path: Path, record: CellRecord) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(StoreError, match="cannot write"):
        write(tmp_path / "results", record, {})
