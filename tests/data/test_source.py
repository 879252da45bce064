"""Paths: what is local, which file holds a split, what is said when there is none; and the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from probegrid.data import load
from probegrid.data.jsonl import JsonlConfig
from probegrid.data.source import read_splits
from probegrid.data.table import Table
from probegrid.errors import ConfigError, DataError
from probegrid.schema import DatasetConfig

OFFLINE = "is not in the cache and the hub cannot be reached"


def tables(path: object, splits: Sequence[str] = ("validation",), subset: str | None = None) -> list[Table]:
    return list(read_splits(JsonlConfig(path=str(path)), splits, subset))


def rows(table: Table) -> list[Any]:
    return [table.row(index)["n"] for index in range(len(table))]


def write_parquet(path: Path, numbers: Sequence[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"n": list(numbers)}), path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "train.parquet",
        "train-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "plain/train.parquet",
    ],
)
def test_a_split_is_found_in_the_layouts_of_the_hub(tmp_path: Path, name: str) -> None:
    write_parquet(tmp_path / name, [1, 2])
    (table,) = tables(tmp_path, ["train"])
    assert rows(table) == [1, 2]


@pytest.mark.parametrize("name", ["dev-v1.1.parquet", "val.parquet", "valid.parquet", "validation.parquet"])
def test_a_validation_split_has_many_names(tmp_path: Path, name: str) -> None:
    write_parquet(tmp_path / name, [1])
    assert rows(tables(tmp_path, ["validation"])[0]) == rows(tables(tmp_path, ["dev"])[0]) == [1]


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    for shard in (2, 0, 1):
        write_parquet(tmp_path / f"train-0000{shard}-of-00003.parquet", [shard])
    assert rows(tables(tmp_path, ["train"])[0]) == [0, 1, 2]


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00003.parquet", [0])
    with pytest.raises(DataError, match="has 1 of the 3 files of the split 'train'"):
        tables(tmp_path, ["train"])


def test_shards_of_two_sets_are_noticed(tmp_path: Path) -> None:
    for name in ("0-of-1", "0-of-2", "1-of-2"):
        write_parquet(tmp_path / f"train-{name}.parquet", [0])
    with pytest.raises(DataError, match="in sets of 1 and of 2 files; remove all but one"):
        tables(tmp_path, ["train"])


def test_a_subset_names_a_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rc/train.parquet", [1])
    write_parquet(tmp_path / "rc.nocontext/train.parquet", [2])
    assert rows(tables(tmp_path, ["train"], "rc.nocontext")[0]) == [2]
    with pytest.raises(
        DataError, match=r"several data sets \(rc, rc\.nocontext\); choose one, dataset\.path=.*/rc say"
    ):
        tables(tmp_path, ["train"])


def test_a_folder_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "year=2016/train.parquet", [1])
    assert tables(path)[0].columns == ("n",)


def test_two_files_for_a_split_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-v1.parquet", [1])
    write_parquet(tmp_path / "train-v2.parquet", [1])
    with pytest.raises(
        DataError, match=r"\(train-v1\.parquet, train-v2\.parquet\); choose one, dataset\.path="
    ):
        tables(tmp_path, ["train"])


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [1])
    write_parquet(tmp_path / "test.parquet", [1])
    with pytest.raises(
        DataError, match=r"no split 'tset'; did you mean 'test'\? Allowed: test, train \(dataset\.split"
    ):
        tables(tmp_path, ["tset"])


def test_a_single_file_is_one_table_and_equal_splits_are_one(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set/train.parquet", [1])
    assert len(tables(path, ["validation", "train"])) == 1
    assert len(tables(path.parent, ["train", "train"])) == 1


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no data file; those end in \.parquet, \.jsonl, \.json, \.csv"
    ):
        tables(tmp_path)


@pytest.mark.parametrize(
    "path", ["train.parquet", "./train", "~/no-such-folder-of-mine/train", "/no/such/file"]
)
def test_a_missing_local_path_is_not_taken_for_a_hub_id(path: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        tables(path)


def test_a_missing_file_names_the_closest(tmp_path: Path) -> None:
    (tmp_path / "validation.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"does not exist; in .*: did you mean 'validation\.jsonl'\?"):
        tables(tmp_path / "validaton.jsonl")
    with pytest.raises(DataError, match=r"does not exist: there is no folder .*/nowhere"):
        tables(tmp_path / "nowhere/x.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"does not exist; .*/empty holds no data file"):
        tables(tmp_path / "empty/x.csv")


def test_a_link_to_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is a link to gone\.jsonl, which does not exist"):
        tables(tmp_path / "a.jsonl")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_parquet(tmp_path / "train.parquet", [5])
    assert rows(tables("~/train.parquet")[0]) == [5]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"n": 1}\n\n{"n": \n', r"a\.jsonl, line 3: malformed JSON"),
        (
            "a.jsonl",
            b'{"n": 1}\n{"n": ' + b"9" * 5000 + b"}\n",
            r"a\.jsonl, line 2: a number has more digits",
        ),
        ("a.json", b"[" * 100_000, r"a\.json: lists or objects are nested too deep"),
        ("a.jsonl", b'{"n": 1}\n[1]\n', r"a\.jsonl, line 2: a JSON object is expected, not '\[1\]'"),
        ("a.json", b'[{"n": 1},\n oops]', r"a\.json, line 2: malformed JSON"),
        ("a.json", b"[1, 2]", r"a\.json holds no rows"),
        ("a.json", b"3", r"a\.json holds no rows"),
        ("a.json", b"[]", r"a\.json is empty"),
        ("a.jsonl", b"\n", r"a\.jsonl is empty"),
        ("a.jsonl", b'{"n": "\xff"}', r"a\.jsonl is not UTF-8 text \(byte 7\)"),
        ("a.csv", b"n\n\xff\n", r"a\.csv is not UTF-8 text"),
        ("a.parquet", b"no parquet", r"a\.parquet cannot be read as parquet"),
        ("a.txt", b"n", r"a\.txt is in no format that can be read; a data file ends in \.parquet"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        tables(tmp_path / name)


def test_an_empty_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty: it has no row"):
        tables(write_parquet(tmp_path / "a.parquet", []))


def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.jsonl"
    path.write_text("{}")
    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(Path, "read_text", denied)
    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"a\.jsonl cannot be read: Permission denied"):
        tables(path)
    with pytest.raises(DataError, match="cannot be listed: Permission denied"):
        tables(tmp_path)


def test_the_hub_out_of_reach_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError, match=rf"'no-such/set' {OFFLINE} .*dataset\.path=<file or folder>"):
        tables("no-such/set")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"),
            r"the hub has no dataset 'a/b', or it is",
        ),
        (ConnectionError("Couldn't reach 'a/b'"), OFFLINE),
        (
            ValueError("BuilderConfig 'x' not found.\nAvailable: y"),
            r"cannot be read with the subset 'x': BuilderConfig 'x' not",
        ),
        (
            datasets.exceptions.DatasetGenerationError(),
            r"cannot be read .*: DatasetGenerationError; a local copy",
        ),
    ],
)
def test_what_the_hub_library_raises_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=message) as raised:
        tables("a/b", subset="x")
    assert "\n" not in str(raised.value)


def test_splits_of_a_hub_dataset_become_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {
        name: datasets.Dataset.from_dict({"n": numbers})
        for name, numbers in (("train", [1, 2]), ("test", [3]))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda path, subset: datasets.DatasetDict(splits))
    test, train = tables("a/b", ["test", "train"])
    assert (rows(test), rows(train)) == ([3], [1, 2])
    assert test.where(0) == "row 1 of a/b (test)"
    with pytest.raises(DataError, match=r"'a/b' has no split 'validation'; Allowed: train, test"):
        tables("a/b")


def test_a_config_of_no_dataset_is_refused() -> None:
    with pytest.raises(ConfigError, match="DatasetConfig names no dataset"):
        load(DatasetConfig())
