"""The page of families: what probegrid makes of a small random checkpoint of each, run as a person would run it.

``pytest -m zoo tests/test_zoo_page.py`` runs every cell of the table and writes ``docs/families.md``.
"""

from __future__ import annotations

import datetime
import gc
import json
import platform
import re
import warnings
from collections import Counter
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
INTRODUCTION = """\
# Families

What becomes of a small random checkpoint of each family (`model_type` in `config.json`) that transformers builds as a
decoder of text, in float32 on a CPU. A number in brackets is the reason, below the table, why it is not more.

- *answers*: the fastest way to read it whose answers are those of the model's own forward pass over one row.
  `shared prefix` is the fastest: the examples that all prompts begin with are computed once, the rest is packed without
  padding. Then come `padded batches`, `one by one`, and `one by one without a cache`. Nothing is looked up: each cell
  finds its way anew, with its own prompts, and names it on the terminal and in `engine` of `result.json`.
- *plan*: whether bytes, memory and time are planned before a weight is read.
- *truncation*: whether a probe at layer 2 loads two blocks and no more.
- *NF4*, *int8*: *answers* of the model quantized so. LLM.int8 rounds a token by all tokens of its pass: where that
  sends it elsewhere, rows are read one by one. Where even a row alone is more than half a nat from itself once other
  tokens follow it, as where an indexer chooses other keys then, int8 is refused: what it says hangs on its company.
- *activations*: how the rows of a batch are read, tried likewise; on a GPU they are packed where that is right.
  Where most of what is read is the same again and again, as with samples of one question, it is computed once
  (`shared prefix`).

Image-text models with a decoder inside are read by that decoder, as its family is
(`PROBEGRID_ZOO=all pytest tests/models/test_every_family.py`). PaliGemma, which reads a prompt both ways, each token
with those behind it, answers one by one, as its own `generate` does; hidden states of its answers are those that they
were written with, and a statement is all prompt.
"""
COMMON = ("tracking=none", "model=custom", "model.dtype=float32", "device_map=cpu")
ANSWERS = ("dataset=facts", "dataset.num_samples=6", "decoding.max_new_tokens=6", "prompt.num_few_shot=2")
FOLDER = re.compile(r"(?<!\w)/\S+/")
"""Where a checkpoint lay, in front of its name."""
APART = re.compile(
    r"\S+ (nats|of its length) from (the model's own forward pass of one row|what the model gives for a row alone), "
    r"where rounding is [-+.\de]+"
)
"""How far a way was from the model's own pass: of random weights the number says nothing."""
STATEMENTS = ("dataset=facts_statements", "dataset.num_samples=40", "probe=mass_mean", "probe.layers=[2]")


@dataclass(frozen=True)
class Made:
    """What a cell came to."""

    way: str
    """How the model was read, ``yes`` or ``no``."""
    why: str = ""
    """Why it is not more than that."""


@dataclass(frozen=True)
class Row:
    """A family's cells."""

    family: str
    cells: Mapping[str, Made]

    @property
    def answers(self) -> bool:
        """Whether it answers."""
        return self.cells["answers"].way != "no"


def attempt(make: Callable[[], Made]) -> Made:
    """What a cell comes to; anything but a sentence is a failure of the test."""
    try:
        return make()
    except (UserError, ProbegridError) as error:
        assert "\n" not in str(error)
        return Made("no", FOLDER.sub("", str(error)))


def row_of(family: str, folder: Path, say: list[str]) -> Row:
    """Run a family's cells, in a store of its own: some families' checkpoints are another's to the last byte."""
    own = [*COMMON, f"model.path={folder}", f"store_dir={folder}/store", f"results_dir={folder}/results"]

    def plan() -> Made:
        probegrid.plan([*own, *ANSWERS])
        return Made("yes")

    def read(kind: str, *cell: str) -> Made:
        done = probegrid.run([*own, *cell])
        found = json.loads((done.folder / "result.json").read_text())["engine"][kind]
        why = "; ".join(f"not {name}: {reason}" for name, reason in found["passed_over"].items())
        return Made(found["used"], APART.sub("not what a plain pass over one row gives", why))

    cells = {"plan": attempt(plan)}
    for quantization, name in (("none", "answers"), ("nf4", "NF4"), ("int8", "int8")):
        chosen = f"quantization={quantization}"
        cells[name] = attempt(lambda chosen=chosen: read("answers", *ANSWERS, chosen))  # type: ignore[misc]
    say.clear()
    cells["activations"] = attempt(lambda: read("activations", *STATEMENTS))
    cut = any(re.match(r"2 of \d+ blocks", line) for line in say)
    whole = next((line for line in say if "cannot be cut" in line), cells["activations"].why)
    cells["truncation"] = Made("yes") if cut else Made("no", whole)
    return Row(family, cells)


def page(rows: list[Row]) -> str:
    """The page's text."""
    names = ("answers", "plan", "truncation", "NF4", "int8", "activations")
    ways = Counter(row.cells["answers"].way for row in rows)
    reasons: dict[str, int] = {}

    def told(row: Row, made: Made) -> str:
        if not made.why:
            return made.way
        reason = re.sub(rf"\b{re.escape(row.family)}\b", "*family*", made.why)
        return f"{made.way} [{reasons.setdefault(reason, len(reasons) + 1)}]"

    table = [
        f"| {row.family} | " + " | ".join(told(row, row.cells[name]) for name in names) + " |" for row in rows
    ]
    made = (
        f"Made by `pytest -m zoo tests/test_zoo_page.py` on {datetime.date.today().isoformat()} with probegrid "
        f"{probegrid.__version__}, transformers {transformers.__version__}, torch {torch.__version__} and Python "
        f"{platform.python_version()}. {len(rows)} families: "
        + ", ".join(f"{count} {'refused' if way == 'no' else way}" for way, count in ways.most_common())
        + "."
    )
    lines = [
        INTRODUCTION,
        made,
        "",
        "| family | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        *table,
        "",
        *(f"{number}. {reason}" for reason, number in reasons.items()),
        "",
    ]
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
        gc.freeze()  # a cell that frees its model goes through all that is held, which is mostly what was imported
        for family in zoo.text_families():
            folder = zoo.save(family, tmp_path / family, vocab_size=len(vocabulary))
            tokenizer.save(vocabulary, folder)
            rows.append(row_of(family, folder, say))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(rows))
    assert sum(row.answers for row in rows) >= 130
