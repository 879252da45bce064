"""A slip in a file of the user's is one sentence with the file and the line, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Own = Callable[[str, str, str], Path]
JSONL = "defaults:\n  - /schema/dataset/jsonl@_here_\n  - _self_\npath: q.jsonl\n"
PRESET = "# @package _global_\n# Mine.\n"


@pytest.mark.parametrize(
    ("choice", "text", "line", "words"),
    [
        ("model=mine", "path: /x\ndtype: [float32\n", 3, "no YAML: while parsing a flow sequence"),
        ("model=mine", "path: /x\n\tdtype: float32\n", 2, r"found character '\t'"),
        ("model=mine", "path: /x\npath: /y\n", 2, "found duplicate key path"),
        ("model=mine", "# Mine.\npath: /x\ndtpye: float32\n", 3, "no key model.dtpye; did you mean 'dtype'?"),
        (
            "model=mine",
            "path: /x\nresources:\n  gpus: many\n",
            3,
            "model.resources.gpus is not allowed: Value 'many'",
        ),
        ("model=mine", "path: /x\ndtype: float31\n", 2, "expected one of [float32, bfloat16, float16]"),
        ("model=mine", "defaults:\n  - llama80b\n  - _self_\n", 2, "did you mean 'llama8b'?"),
        ("dataset=mine", f"{JSONL}num_sample: 3\n", 5, "did you mean 'num_samples'?"),
        ("dataset=mine", JSONL.replace("jsonl@", "jsnl@"), 2, "did you mean 'jsonl'?"),
        ("dataset=mine", "path: q.jsonl\nquestion_column: q\n", 2, "dataset=jsonl or statements has it"),
        ("experiment=mine", f"{PRESET}modle:\n  path: x\n", 3, "no key modle; did you mean 'model'?"),
        ("experiment=mine", f"{PRESET}model:\n  pth: x\n", 4, "no key model.pth; did you mean 'path'?"),
        (
            "experiment=mine",
            f"{PRESET}defaults:\n  - override /model: llama80b\n",
            4,
            "did you mean 'llama8b'?",
        ),
        (
            "hydra/launcher=mine",
            "defaults:\n  - slurm\n  - _self_\npartiton: x\n",
            4,
            "did you mean 'partition'?",
        ),
    ],
)
def test_a_slip_is_named_with_file_and_line(
    probegrid: Any, own: Own, workdir: Path, choice: str, text: str, line: int, words: str
) -> None:
    group, _, name = choice.partition("=")
    file = own(group, name, text)
    ended = probegrid(choice, "--config-dir", "groups")
    assert ended.status == 2
    assert ended.sentence.startswith(f"{file.relative_to(workdir)}, line {line}: ")
    assert words in ended.sentence
    assert list(workdir.iterdir()) == [workdir / "groups"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "groups/model/mine.yaml holds no keys with values"),
        ("# @package a b c\npath: /x\n", "groups/model/mine.yaml: Too many components"),
        ("defaults: llama8b\n", "groups/model/mine.yaml: Invalid defaults list"),
        ("dtype: float32\n", "model.path must be given"),
        ("path: ${nope}\n", "model.path is not allowed: Interpolation key 'nope' not found"),
    ],
)
def test_what_has_no_line_is_one_sentence_too(
    probegrid: Any, own: Own, workdir: Path, text: str, words: str
) -> None:
    own("model", "mine", text)
    ended = probegrid("model=mine", "--config-dir=groups")
    assert ended.status == 2
    assert words in ended.sentence


def test_a_file_that_is_no_text(probegrid: Any, own: Own, workdir: Path) -> None:
    own("model", "mine", "").write_bytes(b"\xff\xfe")
    ended = probegrid("model=mine", "--config-dir=groups")
    assert ended.status == 2
    assert "groups/model/mine.yaml is not UTF-8 text" in ended.sentence


def test_in_a_grid_the_slip_of_one_cell_is_listed(probegrid: Any, own: Own, workdir: Path) -> None:
    own("model", "mine", "path: /x\ndtpye: float32\n")
    ended = probegrid("-m", "model=tiny,mine", "--config-dir", "groups", "tracking=none")
    assert ended.status == 2
    assert "groups/model/mine.yaml, line 2: the config has no key model.dtpye" in ended.err
    assert "1 of 2 cells cannot work" in ended.err.splitlines()[-1]
    assert list(workdir.iterdir()) == [workdir / "groups"]
