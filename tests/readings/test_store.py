"""Entries of the store: found again by what they say, written whole or not at all, damage named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from probegrid.errors import StoreError
from probegrid.readings.store import Entry, key_of

TABLE = pa.table({"index": [1, 2], "text": ["one", "two"]}).replace_schema_metadata({"seconds": "0.5"})
DESCRIPTION = {"checkpoint": "c0ffee", "prompt": {"stop": ["\n"], "seed": 0}}


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return Entry(tmp_path / "store", "answers", DESCRIPTION)


def files(entry: Entry) -> set[str]:
    return {path.name for path in entry.folder.iterdir()}


def test_the_key_depends_on_every_value_and_not_on_their_order() -> None:
    assert key_of(DESCRIPTION) == key_of(dict(reversed(DESCRIPTION.items())))
    assert key_of(DESCRIPTION) != key_of({**DESCRIPTION, "prompt": {"stop": ["\n"], "seed": 1}})
    assert len(key_of(DESCRIPTION)) == 16


def test_an_entry_is_found_again_with_all_its_parts(entry: Entry, tmp_path: Path) -> None:
    entry.write_part("part-000002", TABLE.slice(1))
    entry.write_part("part-000001", TABLE.slice(0, 1))
    entry.write_json("batches.json", [[1, 2]])
    again = Entry(tmp_path / "store", "answers", dict(reversed(DESCRIPTION.items())))
    assert again.folder == entry.folder
    assert pa.concat_tables(again.read_parts()).equals(TABLE)
    assert [part.schema.metadata for part in again.read_parts()] == [{b"seconds": b"0.5"}] * 2
    assert again.read_json("batches.json") == [[1, 2]]
    assert again.read_json("description.json") == DESCRIPTION
    assert again.read_json("never.json") is None


def test_another_description_or_kind_is_another_entry(entry: Entry, tmp_path: Path) -> None:
    entry.write_part("part", TABLE)
    for kind, description in (("answers", {**DESCRIPTION, "more": 1}), ("activations", DESCRIPTION)):
        assert list(Entry(tmp_path / "store", kind, description).read_parts()) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign"])
def test_a_damaged_part_is_named(entry: Entry, damage: str) -> None:
    entry.write_part("part-000001", TABLE)
    part = entry.folder / "part-000001.parquet"
    content = part.read_bytes()
    at = content.index(b"two")
    part.write_bytes(
        {
            "truncated": content[:-20],
            "empty": b"",
            "flipped": content[:at] + b"owt" + content[at + 3 :],
            "foreign": b"not parquet at all",
        }[damage]
    )
    with pytest.raises(StoreError, match=r"part-000001\.parquet is damaged .*delete it") as raised:
        list(entry.read_parts())
    assert "\n" not in str(raised.value)


def test_damaged_json_is_named(entry: Entry) -> None:
    (entry.folder / "batches.json").write_text("[[1, 2")
    with pytest.raises(StoreError, match=r"batches\.json is damaged"):
        entry.read_json("batches.json")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_refuses_leaves_nothing_half_written(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    entry.write_part("part", TABLE)
    before = files(entry)

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    sentence = "cannot be written" if number == errno.EIO else "no space is left"
    with pytest.raises(StoreError, match=sentence):
        entry.write_part("part", TABLE.slice(1))
    with pytest.raises(StoreError, match=sentence):
        entry.write_json("more.json", [])
    assert files(entry) == before
    assert next(entry.read_parts()).equals(TABLE)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match=r"store.* cannot be written"):
        Entry(tmp_path / "store", "answers", DESCRIPTION)
