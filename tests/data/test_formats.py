"""Every way in which a table is written: read alike, or refused with what mends it."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from probegrid.data import load
from probegrid.data.example import Question, QuestionSet
from probegrid.data.formats import data_stem, data_suffix
from probegrid.data.jsonl import JsonlConfig
from probegrid.errors import DataError

ROWS = [{"question": f"What is {n}?", "answers": [f"Number {n}", f"No. {n}"]} for n in range(12)]


def read(path: object, **fields: Any) -> list[Question]:
    loaded = load(JsonlConfig(path=str(path), **fields))
    assert isinstance(loaded, QuestionSet)
    return sorted(
        (*loaded.questions, *loaded.shots), key=lambda question: int(question.id.rpartition("-")[2])
    )


def content(questions: list[Question]) -> list[tuple[str, tuple[str, ...]]]:
    return [(question.text, question.references) for question in questions]


EXPECTED = [(row["question"], tuple(row["answers"])) for row in ROWS]
FRAME = pd.DataFrame(ROWS)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    made: bytes = sink.getvalue().to_pybytes()
    return made


def write_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "A.JSONL": lambda path: path.write_bytes(LINES),
    "a.ndjson": lambda path: path.write_bytes(LINES),
    "array.jsonl": lambda path: path.write_text(json.dumps(ROWS)),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.JSONL.GZ": lambda path: path.write_bytes(gzip.compress(LINES[:200]) + gzip.compress(LINES[200:])),
    "a.json.bz2": lambda path: path.write_bytes(bz2.compress(json.dumps(ROWS).encode())),
    "a.jsonl.zst": lambda path: path.write_bytes(zstd(LINES)),
    "utf32.csv": lambda path: path.write_bytes(FRAME.to_csv().encode("utf-32")),
    "spaces.csv": lambda path: path.write_text(
        "question, answers\n" + "".join(f'{row["question"]}, "{row["answers"]}"\n' for row in ROWS)
    ),
    "noindex.json": lambda path: FRAME.to_json(path, orient="split", index=False),
    "utf16.json": lambda path: path.write_bytes(json.dumps(ROWS).encode("utf-16")),
    "pandas.csv": FRAME.to_csv,
    "pandas.CSV.gz": lambda path: path.write_bytes(gzip.compress(FRAME.to_csv().encode())),
    "pandas.tsv": lambda path: FRAME.to_csv(path, sep="\t", index=False),
    "semicolons.csv": lambda path: FRAME.to_csv(path, sep=";", index=False),
    "pandas.json": FRAME.to_json,
    "records.json": lambda path: FRAME.to_json(path, orient="records"),
    "split.json": lambda path: FRAME.to_json(path, orient="split"),
    "index.json": lambda path: path.write_text(json.dumps({f"q-{n}": row for n, row in enumerate(ROWS)})),
    "lists.json": lambda path: path.write_text(json.dumps(FRAME.to_dict(orient="list"))),
    "pandas.parquet": FRAME.to_parquet,
    "a.feather": lambda path: feather.write_feather(pa.Table.from_pylist(ROWS), str(path)),
    "a.arrow": write_stream,
    "numpy.csv": lambda path: FRAME.assign(
        answers=[f"['{first}' '{second}']" for first, second in FRAME["answers"]]
    ).to_csv(path),
    "jsoncell.csv": lambda path: FRAME.assign(answers=FRAME["answers"].map(json.dumps)).to_csv(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_alike(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    assert content(read(path)) == EXPECTED


@pytest.mark.parametrize(
    ("name", "suffix", "stem"),
    [
        ("Mine.JSONL.gz", ".jsonl", "Mine"),
        ("a.b.csv", ".csv", "a.b"),
        ("a.txt", None, "a.txt"),
        ("gz", None, "gz"),
        (".csv", None, ".csv"),
    ],
)
def test_what_a_name_says(name: str, suffix: str | None, stem: str) -> None:
    assert (data_suffix(name), data_stem(name)) == (suffix, stem)


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    one = datasets.Dataset.from_list(ROWS)
    one.select(range(11, -1, -1)).select(range(11, -1, -1)).save_to_disk(tmp_path / "one", num_shards=2)
    assert content(read(tmp_path / "one")) == EXPECTED
    other = datasets.Dataset.from_list([{"question": "Another?", "answers": ["x"]}])
    datasets.DatasetDict(train=other, validation=one).save_to_disk(tmp_path / "dict")
    loaded = load(JsonlConfig(path=str(tmp_path / "dict")))
    assert isinstance(loaded, QuestionSet)
    assert (len(loaded.questions), loaded.shots[0].text) == (12, "Another?")
    with pytest.raises(DataError, match=r"no split 'test'; Allowed: train, validation"):
        load(JsonlConfig(path=str(tmp_path / "dict"), split="test"))
    (tmp_path / "one/data-00000-of-00002.arrow").unlink()
    with pytest.raises(DataError, match="cannot be read as a saved dataset"):
        load(JsonlConfig(path=str(tmp_path / "one")))


@pytest.mark.parametrize(
    ("validation", "train"),
    [
        ("mydata_validation.jsonl", "mydata_train.jsonl"),
        ("mydata.dev.jsonl", "mydata.train.jsonl"),
        ("validation_mine.jsonl", "train_mine.jsonl"),
        ("MINE-VAL.JSONL", "MINE-TRAIN.JSONL"),
        ("validation/0000.jsonl", "train/0000.jsonl"),
        ("dev/part-1.jsonl", "train/part-1.jsonl"),
        ("data/val/x.jsonl", "data/train/y.jsonl"),
        ("sub/mine_valid.jsonl", "sub/mine_training.jsonl"),
        ("validation/0000.jsonl", "mine.train.jsonl"),
        ("mine_dev.jsonl", "train/0000.jsonl"),
    ],
)
def test_split_names_stand_anywhere(tmp_path: Path, validation: str, train: str) -> None:
    for name, rows in ((validation, ROWS), (train, [{"question": "Shown?", "answers": "x"}])):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load(JsonlConfig(path=str(tmp_path)))
    assert isinstance(loaded, QuestionSet)
    assert (len(loaded.questions), [shot.text for shot in loaded.shots]) == (12, ["Shown?"])


def test_a_file_beside_the_folders_of_splits_is_none_of_them(tmp_path: Path) -> None:
    for name, rows in (
        ("validation/a", ROWS),
        ("train/a", [{"question": "Shown?", "answers": "x"}]),
        ("notes", []),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load(JsonlConfig(path=str(tmp_path)))
    assert isinstance(loaded, QuestionSet)
    assert (len(loaded.questions), [shot.text for shot in loaded.shots]) == (12, ["Shown?"])
    (tmp_path / "dev.jsonl").write_bytes(LINES)
    with pytest.raises(
        DataError, match=r"split 'validation' as the file dev\.jsonl and as the folder validation"
    ):
        load(JsonlConfig(path=str(tmp_path)))


def test_a_split_of_its_own_name_is_not_taken_for_its_last_word(tmp_path: Path) -> None:
    for name, question in (("auxiliary_train", "Auxiliary?"), ("train", "Train?"), ("test", "Test?")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": question, "answers": "x"}))
    loaded = load(JsonlConfig(path=str(tmp_path), split="test", shot_split="train"))
    assert isinstance(loaded, QuestionSet)
    assert [shot.text for shot in loaded.shots] == ["Train?"]
    loaded = load(JsonlConfig(path=str(tmp_path), split="test", shot_split="auxiliary_train"))
    assert isinstance(loaded, QuestionSet)
    assert [shot.text for shot in loaded.shots] == ["Auxiliary?"]


def test_a_folder_of_one_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes(LINES)
    (tmp_path / "._mine.jsonl").write_bytes(b"\x00\x05 of another system")
    assert content(read(tmp_path)) == EXPECTED


def test_globs(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.csv").write_text("question,answers\nOne more?,x\n")
    (tmp_path / "b.jsonl").write_text('{"question": "Last?", "answers": ["y"]}')
    assert content(read(f"{tmp_path}/*.jsonl")) == [*EXPECTED, ("Last?", ("y",))]
    with pytest.raises(DataError, match=r"no data file is called like .*/\*\.parquet"):
        read(f"{tmp_path}/*.parquet")
    (tmp_path / "s").mkdir()
    (tmp_path / "s/mine_dev.jsonl").write_bytes(LINES)
    (tmp_path / "s/mine_train.jsonl").write_text('{"question": "Shown?", "answers": ["y"]}')
    loaded = load(JsonlConfig(path=f"{tmp_path}/s/*.jsonl"))
    assert isinstance(loaded, QuestionSet)
    assert (len(loaded.questions), len(loaded.shots)) == (12, 1)  # what is shown is not among what is asked


def test_shards_of_other_types(tmp_path: Path) -> None:
    types = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]
    for shard, kind in enumerate(types):
        part = pa.table(
            {
                "question": pa.array([f"Q{shard}"]).cast(kind),
                "answers": pa.array([f"A{shard}"], pa.large_string()),
            }
        )
        parquet.write_table(part, tmp_path / f"validation-0000{shard}-of-00004.parquet")
    assert content(read(tmp_path, shot_split="validation")) == [(f"Q{n}", (f"A{n}",)) for n in range(4)]


def test_a_cell_of_any_length(tmp_path: Path) -> None:
    long = "x" * 400_000
    (tmp_path / "a.csv").write_text(f"question,answers\n{long},{long}\n")
    assert content(read(tmp_path / "a.csv")) == [(long, (long,))]


def test_rows_inside_an_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": "1", "data": {"items": ROWS, "authors": [{"name": "x"}]}}))
    with pytest.raises(DataError, match=r"dataset\.records=data\.items or dataset\.records=data\.authors"):
        read(path)
    assert content(read(path, records="data.items")) == EXPECTED
    with pytest.raises(DataError, match=r"nothing at dataset\.records=data\.rows: there is items, authors"):
        read(path, records="data.rows")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "question,answers,answers\na,b,c\n",
            r"2 columns named 'answers' \(columns 2 and 3\); rename",
        ),
        ("a.csv", "question, answers ,answers\na,b,c\n", r"2 columns named 'answers'"),
        (
            "a.jsonl",
            '{"question": "a", "answers": "b", "answers": "c"}',
            r"line 1: an object has twice 'answers'",
        ),
        ("a.json", '[{"question": "a", "question": "b"}]', r"an object has twice 'question'"),
        ("a.tsv", "question\tanswers\na\tb\tc\n", r"line 2: the number of fields is not .*holds a tab"),
        (
            "a.json",
            '{"question": ["a", "b"], "answers": ["x"]}',
            r"columns of different lengths: question 2, ans",
        ),
        (
            "a.json",
            '{"question": {"0": "a"}, "answers": {"0": "b", "1": "c"}}',
            r"question in row 2 of .* is None",
        ),
        (
            "a.json",
            '{"columns": ["question"], "data": [["a"], []]}',
            r"row 2 of .* does not have a cell for each",
        ),
        ("a.json", '{"columns": 1, "data": [["a"]]}', r"no column 'question'"),
        ("a.csv", "q\0u\0\n\0", r"holds NUL bytes, as UTF-16 .*save it as UTF-8"),
        (
            "a.csv",
            "version https://git-lfs.github.com/spec/v1\noid x\n",
            r"Git LFS's pointer .*`git lfs pull`",
        ),
        ("a.json", " \n", r"is empty: it has no row"),
        ("a.jsonl.gz", "no gzip", r"cannot be read as gzip"),
        ("a.arrow", "no arrow", r"cannot be read as arrow"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.csv", r"is of JSON files, and .*a\.csv is none"),
        ("a.jsonl", r"holds an object a line, .*dataset\.question_column=data\.<name>"),
    ],
)
def test_a_place_of_rows_that_nothing_has_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text('{"data": {"question": "a"}}\n{"data": {"question": "b"}}\n')
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, records="data")


def test_files_that_say_no_split_are_read_by_a_pattern(tmp_path: Path) -> None:
    for name in ("part-0.jsonl", "part-1.jsonl", ".cache/other.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(LINES)
    with pytest.raises(DataError, match=rf"none of its files says a split .*dataset\.path='{tmp_path}/\*'"):
        read(tmp_path)
    assert len(read(f"{tmp_path}/*")) == len(ROWS)


def test_hidden_folders_are_another_programs(tmp_path: Path) -> None:
    for name in (".ipynb_checkpoints/mine.jsonl", "sub/mine.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(LINES)
    assert content(read(tmp_path)) == EXPECTED


CLASSES = datasets.Features(
    question=datasets.Value("string"), answers=datasets.ClassLabel(names=["yes", "no"])
)


@pytest.mark.parametrize("name", ["a.parquet", "saved"])
def test_a_class_is_its_name(tmp_path: Path, name: str) -> None:
    made = datasets.Dataset.from_dict({"question": ["A", "B", "C"], "answers": [1, 0, -1]}, features=CLASSES)
    (made.to_parquet if name == "a.parquet" else made.save_to_disk)(str(tmp_path / name))
    assert content(read(tmp_path / name)) == [("A", ("no",)), ("B", ("yes",))]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([0.1, 3], pa.float32()), [("0.1",), ("3",)]),
        (pa.array([[0.1], [2.5, 3]], pa.list_(pa.float32())), [("0.1",), ("2.5", "3")]),
        (pa.array([[("text", "x")], [("text", "y")]], pa.map_(pa.string(), pa.string())), [("x",), ("y",)]),
    ],
)
def test_arrow_values_are_what_was_written(
    tmp_path: Path, cells: Any, expected: list[tuple[str, ...]]
) -> None:
    parquet.write_table(pa.table({"question": ["A", "B"], "answers": cells}), tmp_path / "a.parquet")
    assert [one.references for one in read(tmp_path / "a.parquet")] == expected


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([2**52], pa.timestamp("ms")),
        pa.Array.from_buffers(pa.string(), 1, pa.array([b"K\xf6ln"]).buffers()),
    ],
)
def test_arrow_values_that_python_cannot_hold_are_named(tmp_path: Path, cells: Any) -> None:
    parquet.write_table(pa.table({"question": ["A"], "answers": ["x"], "t": cells}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"'t' in row 1 of .* cannot be read .*; write it as text"):
        read(tmp_path / "a.parquet")


def test_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    table = pa.table(
        [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["question", "answers", "answers"]
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="2 columns named 'answers'"):
        read(tmp_path / "a.parquet")


def test_unquoted_tabs_may_begin_with_a_quotation_mark(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('question\tanswers\n"Heroes" is whose song?\tBowie\n')
    assert content(read(tmp_path / "a.tsv")) == [('"Heroes" is whose song?', ("Bowie",))]


printable = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
).filter(
    lambda text: (
        text.strip() and not text.strip().startswith(("[", "{")) and text.strip() not in CELLS_NOT_TEXT
    )
)
CELLS_NOT_TEXT = {"nan", "NaN", "<NA>", "NaT", "#N/A"}
answer = st.lists(printable, min_size=1, max_size=3, unique=True)
FORMATS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "a.csv": lambda frame, path: frame.to_csv(path, index=False),
    "a.tsv": lambda frame, path: frame.to_csv(path, sep="\t"),
    "a.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "a.json": lambda frame, path: frame.to_json(path),
    "a.parquet": lambda frame, path: frame.to_parquet(path),
    "a.jsonl.gz": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "a.csv.zst": lambda frame, path: path.write_bytes(zstd(frame.to_csv().encode())),
}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(printable, answer), min_size=1, max_size=6))
def test_any_table_is_the_same_in_every_format(tmp_path: Path, rows: list[tuple[str, list[str]]]) -> None:
    frame = pd.DataFrame(
        {"question": [f"{n} {q}" for n, (q, _) in enumerate(rows)], "answers": [a for _, a in rows]}
    )
    expected = [(question, tuple(answers)) for question, answers in frame.itertuples(index=False)]
    for name, write in FORMATS.items():
        write(frame, tmp_path / name)
        assert content(read(tmp_path / name)) == expected, name
