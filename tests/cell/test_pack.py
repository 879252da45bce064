"""What is made once: tokenizers a pack, prompts, passages and plans a cell; and what ``force`` makes again."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from probegrid.cell import plan as planning
from probegrid.cell import prepare as preparing
from probegrid.cell.pack import Pack
from probegrid.cell.run import Result, run_cell
from probegrid.compose import compose_cell
from probegrid.errors import ConfigError
from probegrid.models import load
from probegrid.progress import Progress
from probegrid.schema import CellSpec

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

FEW = ("dataset.num_samples=6", "tracking=none")
ANSWERS = (*FEW, "decoding.max_new_tokens=4")
STATEMENTS = (
    *FEW,
    "dataset=facts_statements",
    "probe=logistic",
    "probe.layers=[1]",
    "dataset.num_samples=40",
)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each thing is made."""
    found: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        made = getattr(owner, name)

        def counting(*given: Any, **named: Any) -> Any:
            found[name] += 1
            return made(*given, **named)

        monkeypatch.setattr(owner, name, counting)

    count(load, "load_tokenizer")
    count(preparing, "build_prompts")
    count(preparing, "statement_passages")
    count(planning, "plan")
    return found


def run(*specs: CellSpec) -> list[Result]:
    with Progress(Console(file=io.StringIO())) as progress, Pack(specs) as pack:
        return [run_cell(spec, pack=pack, progress=progress) for spec in specs]


def test_an_answer_cell_makes_each_thing_once(workdir: Path, counts: Counter[str]) -> None:
    run(compose_cell(ANSWERS))
    assert counts == {
        "load_tokenizer": 1,
        "build_prompts": 1,
        "plan": 1,
    }  # placed part by part, not by load_model


def test_an_activation_cell_makes_each_thing_once(workdir: Path, counts: Counter[str]) -> None:
    run(compose_cell(STATEMENTS))
    assert counts == {"load_tokenizer": 1, "statement_passages": 1, "plan": 1}


def test_a_pack_of_three_has_one_tokenizer_and_one_more_plan_for_its_placement(
    workdir: Path, counts: Counter[str]
) -> None:
    cells = [compose_cell([*ANSWERS, f"seed={seed}", "dataset.seed=0", "prompt.seed=0"]) for seed in (0, 1)]
    results = run(*cells, compose_cell(STATEMENTS))
    assert counts == {"load_tokenizer": 1, "build_prompts": 1, "statement_passages": 1, "plan": 4}
    assert [result.metrics["load_s"] > 0 for result in results] == [True, False, False]


def test_a_done_cell_makes_no_plan(workdir: Path, counts: Counter[str]) -> None:
    run(compose_cell(ANSWERS))
    counts.clear()
    (again,) = run(compose_cell(ANSWERS))
    assert again.was_done
    assert counts == {"load_tokenizer": 1, "build_prompts": 1}


def test_what_reads_no_model_makes_none_of_it(workdir: Path, counts: Counter[str]) -> None:
    (result,) = run(
        compose_cell(
            [
                "model=custom",
                "model.path=nobody/has-this",
                "dataset=facts_statements",
                "probe=text_baseline",
                *FEW[1:],
            ]
        )
    )
    assert result.metrics["n"] == 300
    assert not counts


def test_force_reads_and_computes_again_and_replaces(workdir: Path) -> None:
    (first,) = run(compose_cell(ANSWERS))
    before = (first.folder / "result.json").stat().st_mtime_ns
    (forced,) = run(compose_cell([*ANSWERS, "force=true"]))
    assert (forced.was_done, forced.key) == (False, first.key)
    assert (first.folder / "result.json").stat().st_mtime_ns > before
    assert forced.metrics["load_s"] > 0
    assert forced.tables["answers"].answer.tolist() == first.tables["answers"].answer.tolist()
    (again,) = run(compose_cell(ANSWERS))
    assert again.was_done
    assert again.metrics["read_s"] == forced.metrics["read_s"] != first.metrics["read_s"]


def test_force_reads_what_the_cells_of_a_pack_share_once(workdir: Path) -> None:
    seeds = ("dataset.seed=0", "prompt.seed=0", "force=true")
    cells = [compose_cell([*ANSWERS, f"seed={seed}", *seeds]) for seed in (0, 1)]
    run(*cells)
    with Progress(Console(file=io.StringIO())) as progress, Pack(cells) as pack:
        since = 1e9  # as of a sweep that was submitted then: what was read since stands
        results = [run_cell(spec, pack=pack, since=since, progress=progress) for spec in cells]
    assert not any(result.was_done for result in results)
    assert [result.metrics["load_s"] for result in results] == [0, 0]


def test_a_cell_that_cannot_work_leaves_the_others_alone(workdir: Path) -> None:
    good, bad = compose_cell(ANSWERS), compose_cell([*FEW, "dataset=facts_statements", "probe=gnll"])
    with Progress(Console(file=io.StringIO())) as progress, Pack([bad, good]) as pack:
        with pytest.raises(ConfigError, match="holds statements"):
            run_cell(bad, pack=pack, progress=progress)
        assert run_cell(good, pack=pack, progress=progress).metrics["n"] == 6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("probe=gnll", "dataset=facts_statements"), "holds statements; choose a question-answer dataset"),
        (
            ("probe=logistic", "dataset=facts_statements", "probe.layers=[99]"),
            "layer 99 and the model has 6 blocks",
        ),
        (("probe=logistic", "probe.layers=[99]"), "layer 99 and the model has 6 blocks"),
        (
            (
                "probe=logistic",
                "dataset=facts_statements",
                "probe.split=leave_one_source_out",
                "dataset.num_samples=9",
            ),
            "source",
        ),
        (("probe=logistic", "dataset=facts_statements", "dataset.num_samples=1"), "are needed"),
        (("probe=logistic", "probe.positions=next_token"), "is not a position of answers"),
        (("probe=text_baseline", "dataset=facts_statements", "dataset.num_samples=1"), "are needed"),
        (("decoding.max_new_tokens=100000", "dataset.num_samples=3"), "context is"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    workdir: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Exception, match=message) as raised:
        preparing.prepare(compose_cell([*overrides, "tracking=none"]))
    assert getattr(raised.value, "exit_status", None) == 2
    assert not list(workdir.iterdir())
