"""The page of families: what probegrid makes of a small random checkpoint of each, run as a person would run it.

``pytest -m zoo tests/test_zoo_page.py`` runs every cell of the table and writes ``docs/families.md``.
"""

from __future__ import annotations

import datetime
import json
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
import zoo

import probegrid
from probegrid.embedded import tokenizer
from probegrid.errors import ProbegridError, UserError

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
COMMON = ("tracking=none", "model=custom", "model.dtype=float32", "device_map=cpu")
ANSWERS = ("dataset=facts", "dataset.num_samples=6", "decoding.max_new_tokens=6", "prompt.num_few_shot=2")
STATEMENTS = ("dataset=facts_statements", "dataset.num_samples=40", "probe=mass_mean", "probe.layers=[2]")


@dataclass(frozen=True)
class Row:
    """What came of a family's cells: a way, or why there is none."""

    family: str
    cells: Mapping[str, str]

    @property
    def answers(self) -> bool:
        """Whether it answers."""
        return not self.cells["answers"].startswith("refused")


def attempt(make: Callable[[], str]) -> str:
    """What a cell comes to; anything but a sentence is a failure of the test."""
    try:
        return make()
    except (UserError, ProbegridError) as error:
        assert "\n" not in str(error)
        return f"refused: {error}"


def row_of(family: str, folder: Path, say: list[str]) -> Row:
    """Run a family's cells."""
    path = f"model.path={folder}"

    def plan() -> str:
        probegrid.plan([*COMMON, *ANSWERS, path])
        return "yes"

    def answers(quantization: str) -> str:
        done = probegrid.run([*COMMON, *ANSWERS, path, f"quantization={quantization}"])
        return str(json.loads((done.folder / "result.json").read_text())["engine"]["answers"]["used"])

    def activations() -> str:
        done = probegrid.run([*COMMON, *STATEMENTS, path])
        return str(json.loads((done.folder / "result.json").read_text())["engine"]["activations"]["used"])

    cells = {"plan": attempt(plan)}
    for quantization, name in (("none", "answers"), ("nf4", "NF4"), ("int8", "int8")):
        cells[name] = attempt(lambda quantization=quantization: answers(quantization))  # type: ignore[misc]
    say.clear()
    cells["activations"] = attempt(activations)
    cut = any("2 of 4 blocks" in line or "2 of 8 blocks" in line for line in say)
    cells["truncation"] = "yes" if cut else "no: all blocks are loaded"
    return Row(family, cells)


def page(rows: list[Row]) -> str:
    """The page's text."""
    names = ("answers", "plan", "truncation", "NF4", "int8", "activations")
    ways: dict[str, int] = {}
    for row in rows:
        ways[row.cells["answers"].partition(":")[0]] = ways.get(row.cells["answers"].partition(":")[0], 0) + 1
    lines = [
        "# Families",
        "",
        "What becomes of a small random checkpoint of each family that transformers builds as a causal language model, in",
        "float32 on a CPU. *Answers* names the fastest way to read it that gave what the model's own forward pass of one row",
        "gives; each cell finds it out anew, with its own prompts, and says so in `engine` of `result.json`. NF4 and int8 are",
        "the same under these quantizations; *truncation* is whether a probe at layer 2 loads two blocks; *activations* how",
        "the rows of a batch are read.",
        "",
        f"Made by `pytest -m zoo tests/test_zoo_page.py` on {datetime.date.today().isoformat()} with probegrid "
        f"{probegrid.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}. {len(rows)} families: "
        + ", ".join(f"{count} {way}" for way, count in sorted(ways.items(), key=lambda each: -each[1]))
        + ".",
        "",
        "| family | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    notes: dict[str, int] = {}
    for row in rows:
        cells = []
        for name in names:
            found = row.cells[name]
            if found.startswith("refused: "):
                reason = found.removeprefix("refused: ").replace(row.family, "*family*")
                found = f"no [{notes.setdefault(reason, len(notes) + 1)}]"
            cells.append(found)
        lines.append(f"| {row.family} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {reason}" for reason, number in notes.items()), ""]
    return "\n".join(lines)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What cells say while they run."""
    from probegrid.progress import Progress

    lines: list[str] = []
    said = Progress.say

    def say(self: Progress, text: str) -> None:
        lines.append(text)
        said(self, text)

    Progress.say = say  # type: ignore[method-assign]
    try:
        yield lines
    finally:
        Progress.say = said  # type: ignore[method-assign]


@pytest.mark.zoo
@pytest.mark.slow
def test_the_page_of_families(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "zoo" not in str(request.config.getoption("-m")):
        pytest.skip("takes a quarter of an hour: pytest -m zoo")
    monkeypatch.chdir(tmp_path)
    vocabulary = tokenizer.build(zoo.CONTEXT)
    rows = []
    with heard() as say, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what families' own code warns of
        for family in zoo.text_families():
            folder = zoo.save(family, tmp_path / family, vocab_size=len(vocabulary))
            tokenizer.save(vocabulary, folder)
            rows.append(row_of(family, folder, say))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(rows))
    assert sum(row.answers for row in rows) >= 130
