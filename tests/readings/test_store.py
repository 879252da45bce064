"""Entries of the store: found again by what they say, written whole or not at all, damage set aside."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from other_user import another_user, only_root

from probegrid.disk import content_name
from probegrid.errors import StoreError
from probegrid.readings.store import Entry, key_of, read_verified
from probegrid.readings.verify import verify_store

TABLE = pa.table({"index": [1, 2], "text": ["one", "two"]})
COLUMNS = ("index", "text")
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


def rows(entry: Entry) -> list[dict[str, object]]:
    found = [row for part in entry.read_parts(COLUMNS) for row in part.to_pylist()]
    return sorted(found, key=lambda row: str(row["index"]))


def parts(entry: Entry) -> list[Path]:
    return sorted(entry.folder.glob("part-*.parquet"))


def test_an_entry_is_found_again_with_all_its_parts(entry: Entry, tmp_path: Path) -> None:
    entry.write_part(TABLE.slice(1))
    entry.write_part(TABLE.slice(0, 1))
    entry.write_part(TABLE.slice(0, 1))
    entry.write_json("batches.json", [[1, 2]])
    again = Entry(tmp_path / "store", "answers", dict(reversed(DESCRIPTION.items())))
    assert again.folder == entry.folder
    assert len(parts(again)) == 2  # the same content has the same name
    assert rows(again) == TABLE.to_pylist()
    assert again.read_json("batches.json") == [[1, 2]]
    assert again.read_json("description.json") == DESCRIPTION
    assert again.read_json("never.json") is None
    assert again.damage == []


def test_parts_are_merged_and_nothing_is_lost(entry: Entry) -> None:
    entry.merge(COLUMNS)
    assert parts(entry) == []
    for row in range(2):
        entry.write_part(TABLE.slice(row, 1))
    entry.merge(COLUMNS)
    (merged,) = parts(entry)
    assert rows(entry) == TABLE.to_pylist()
    entry.merge(COLUMNS)
    assert parts(entry) == [merged]


def test_a_reader_finds_every_row_while_others_merge(entry: Entry) -> None:
    for row in range(2):
        entry.write_part(TABLE.slice(row, 1))
    first, second = parts(entry)
    reader = read_verified(entry, entry.folder, "part-*.parquet")
    assert next(reader)[0] == first
    entry.merge(COLUMNS)
    assert not second.exists()
    read = [pq.read_table(io.BytesIO(content)) for _, content in reader]
    assert {row["text"] for table in read for row in table.to_pylist()} == {"one", "two"}


def test_another_description_or_kind_is_another_entry(entry: Entry, tmp_path: Path) -> None:
    entry.write_part(TABLE)
    for kind, description in (("answers", {**DESCRIPTION, "more": 1}), ("activations", DESCRIPTION)):
        assert Entry(tmp_path / "store", kind, description).read_parts(COLUMNS) == []


@given(data=st.data())
def test_no_flipped_bit_is_believed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    entry = Entry(tmp_path_factory.mktemp("store"), "answers", DESCRIPTION)
    entry.write_part(TABLE)
    (part,) = parts(entry)
    content = bytearray(part.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    part.write_bytes(content)
    assert entry.read_parts(COLUMNS) == []
    assert entry.damage == [
        f"{part} is damaged (its checksum differs); it is set aside as *.damaged, and what it held is made again"
    ]
    assert files(entry) == {"description.json", f"{part.name}.damaged"}


@pytest.mark.parametrize("content", [b"", b"not parquet at all"])
def test_what_is_no_part_is_set_aside_and_the_others_stand(entry: Entry, content: bytes) -> None:
    entry.write_part(TABLE)
    name = f"part-{content_name(content)}.parquet"
    (entry.folder / name).write_bytes(content)  # as its name says, and yet no table
    assert rows(entry) == TABLE.to_pylist()
    assert [name in sentence and "\n" not in sentence for sentence in entry.damage] == [True]
    assert f"{name}.damaged" in files(entry)


def test_a_table_without_the_columns_is_no_part(entry: Entry) -> None:
    entry.write_part(TABLE.drop_columns(["text"]))
    assert rows(entry) == []
    assert "has no column text" in entry.damage[0]


def test_damaged_json_is_set_aside(entry: Entry) -> None:
    (entry.folder / "batches.json").write_text("[[1, 2")
    assert entry.read_json("batches.json") is None
    assert "batches.json is damaged" in entry.damage[0]
    assert "batches.json.damaged" in files(entry)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_part_that_may_not_be_read_is_no_damage(entry: Entry) -> None:
    entry.write_part(TABLE)
    parts(entry)[0].chmod(0)
    with pytest.raises(StoreError, match=r"cannot read .*: no permission, it belongs to"):
        entry.read_parts(COLUMNS)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_refuses_leaves_nothing_half_written(
    entry: Entry, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    entry.write_part(TABLE)
    before = files(entry)

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    sentence = "cannot be written" if number == errno.EIO else "no space is left"
    with pytest.raises(StoreError, match=sentence):
        entry.write_part(TABLE.slice(1))
    with pytest.raises(StoreError, match=sentence):
        entry.write_json("more.json", [])
    assert files(entry) == before
    assert rows(entry) == TABLE.to_pylist()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match=r"store.* cannot be written"):
        Entry(tmp_path / "store", "answers", DESCRIPTION)


@only_root
def test_verify_names_what_is_closed_and_what_cannot_be_set_aside(entry: Entry, tmp_path: Path) -> None:
    for each in (TABLE, TABLE.slice(1)):
        entry.write_part(each)
    for part in parts(entry):
        part.write_bytes(b"other")
    closed = Entry(tmp_path / "store", "choices", DESCRIPTION)
    closed.folder.chmod(0o700)
    (tmp_path / "store" / "lost+found").mkdir(mode=0o700)
    with another_user(tmp_path / "store"):
        found, lines = verify_store(tmp_path / "store")
        with pytest.raises(StoreError, match="is damaged and cannot be set aside: no permission"):
            entry.read_parts(COLUMNS)
    assert found == 3
    assert [line.partition(":")[0] for line in lines] == [
        f"cannot read {closed.folder}",
        *(f"{part} is damaged and cannot be set aside" for part in parts(entry)),
    ]
