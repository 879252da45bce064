"""A bit that flipped in any file that a cell leaves is never believed, and stops neither its own cell nor others."""

from __future__ import annotations

import functools
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from probegrid.actions import act
from probegrid.compose import compose_cell
from probegrid.errors import ProbegridError

QUESTIONS = (
    "dataset.num_samples=8",
    "prompt.num_few_shot=1",
    "decoding.max_new_tokens=4",
    "quantization=nf4",
)
STATEMENTS = ("dataset=facts_statements", "dataset.num_samples=40", "probe=logistic", "probe.layers=[1,2]")
NOT_BELIEVED = ("batches-",)
"""Which passages are read together, where a reading goes on: no number depends on more than its last digits."""

pytestmark = pytest.mark.slow


@pytest.fixture
def probegrid(workdir: Path, checkpoint: Callable[[str], Path]) -> Callable[..., int]:
    """Act as the command does, each composed once: its status."""
    model = ("model=custom", f"model.path={checkpoint('llama')}", "model.dtype=float32", "tracking=none")
    composed = functools.cache(lambda *overrides: compose_cell([*model, *overrides]))

    def run(*overrides: str) -> int:
        try:
            act(composed(*overrides))
        except ProbegridError as error:
            print(error, file=sys.stderr)
            return error.exit_status
        return 0

    return run


def numbers(folder: Path) -> dict[str, object]:
    return {
        path.parent.name: {
            name: value
            for name, value in json.loads(path.read_text())["metrics"].items()
            if name in ("accuracy", "auroc", "n", "auroc_ci_low", "auroc_ci_high") and value == value
        }
        for path in folder.glob("results/*/result.json")
    }


@pytest.mark.parametrize("cell", [QUESTIONS, STATEMENTS], ids=["questions", "statements"])
def test_a_flipped_bit_in_any_file(
    probegrid: Callable[..., int], workdir: Path, tmp_path: Path, cell: tuple[str, ...]
) -> None:
    """Those of results are looked at by the same command; those of the store once the result is gone."""
    assert probegrid(*cell) == 0
    sound = numbers(workdir)
    whole = shutil.copytree(workdir, tmp_path / "whole")
    files = [file.relative_to(whole) for file in sorted(whole.glob("*/**/*")) if file.is_file()]
    assert {file.suffix for file in files} >= {".parquet", ".json", ".yaml", ".png", ".svg", ".safetensors"}
    # each beside its PNG, and checked as that is
    drawings = [file for file in files if file.suffix == ".svg"]
    generator = random.Random(8)
    for file in files:
        if file.name.startswith(NOT_BELIEVED) or file in drawings[1:]:
            continue
        for folder in ("results", "store"):
            shutil.rmtree(workdir / folder)
            shutil.copytree(whole / folder, workdir / folder)
        content = bytearray((whole / file).read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        (workdir / file).write_bytes(content)
        if file.parts[0] == "store":
            shutil.rmtree(workdir / "results")
            if file.parts[1] == "quantized":  # which nothing looks at that has no model to load
                shutil.rmtree(workdir / "store" / "answers")
        elif file.suffix != ".json":
            assert probegrid("action=verify") == 1, file
            shutil.rmtree(workdir / "results")
            shutil.copytree(whole / "results", workdir / "results")
            (workdir / file).write_bytes(content)
        assert probegrid(*cell) == 0, file
        assert numbers(workdir) == sound, file
        assert probegrid("action=verify") == 0, file


def test_a_damaged_cell_leaves_the_report_of_the_others(
    probegrid: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probegrid(*QUESTIONS) == 0
    assert probegrid(*QUESTIONS, "seed=1") == 0
    first, second = sorted((workdir / "results").glob("*/scores.parquet"))
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert probegrid("action=report") == 1
    said = capsys.readouterr()
    assert f"{first.relative_to(workdir)} is damaged" in said.out
    assert "1 of the recorded cells are not in the report" in said.err
    table = (workdir / "report" / "table.csv").read_text()
    assert second.parent.name[:8] in table
    assert first.parent.name[:8] not in table
