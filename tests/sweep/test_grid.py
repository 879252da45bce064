"""Keys go to the choices that have them, equal cells are kept once, and each cell is called by what is run."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sweep_helpers import Grid

from probegrid.errors import ConfigError
from probegrid.sweep.grid import ComposedCell, cell_names, compose_grid
from probegrid.sweep.options import LocalOptions, SlurmOptions
from probegrid.tracking.sweep_folder import SweepFolder

pytestmark = pytest.mark.slow  # cells of real models, or composed one by one

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Capture = pytest.CaptureFixture[str]


def cells(*words: str) -> list[ComposedCell]:
    return compose_grid(words)[0]


def overrides(composed: list[ComposedCell]) -> list[str]:
    return [" ".join(cell.overrides) for cell in composed]


@pytest.mark.parametrize(
    ("words", "composed", "said"),
    [
        (
            ["dataset=facts_statements", "probe=logistic,mass_mean", "probe.layers=all"],
            [
                "dataset=facts_statements probe=logistic probe.layers=all",
                "dataset=facts_statements probe=mass_mean probe.layers=all",
            ],
            [],
        ),
        (
            ["probe=gnll,logistic", "probe.layers=all"],
            ["probe=gnll", "probe=logistic probe.layers=all"],
            ["probe.layers goes to probe=logistic; probe=gnll has no use for it"],
        ),
        (
            ["probe.split=random,leakfree", "probe=gnll,p_true,logistic"],
            [
                "probe=gnll",
                "probe=p_true",
                "probe.split=random probe=logistic",
                "probe.split=leakfree probe=logistic",
            ],
            [
                "probe.split goes to probe=logistic; probe=gnll, p_true has no use for it",
                "6 cells are 4: those that equal another one are kept once",
            ],
        ),
        (
            ["probe=gnll,logistic", "probe.C=[0.1],[1]"],
            ["probe=gnll", "probe=logistic probe.C=[0.1]", "probe=logistic probe.C=[1]"],
            [
                "probe.C goes to probe=logistic; probe=gnll has no use for it",
                "4 cells are 3: those that equal another one are kept once",
            ],
        ),
        (
            ["dataset=facts,my.jsonl", "dataset.answerable_only=true"],
            ["dataset=facts", "dataset=my.jsonl dataset.answerable_only=true"],
            ["dataset.answerable_only goes to dataset=jsonl; dataset=facts has no use for it"],
        ),
        (
            ["decoding=greedy,sample", "decoding.temperature=0.5,1.0", "decoding.num_generations=5"],
            [
                "decoding=greedy",
                "decoding=sample decoding.temperature=0.5 decoding.num_generations=5",
                "decoding=sample decoding.temperature=1.0 decoding.num_generations=5",
            ],
            [
                "decoding.num_generations goes to decoding=sample; decoding=greedy has no use for it",
                "decoding.temperature goes to decoding=sample; decoding=greedy has no use for it",
                "4 cells are 3: those that equal another one are kept once",
            ],
        ),
        (
            ["probe=gnll,semantic_entropy", "decoding.temperature=0.5"],
            ["probe=gnll", "probe=semantic_entropy decoding.temperature=0.5"],
            ["decoding.temperature goes to decoding=sample; decoding=greedy has no use for it"],
        ),
        (
            [
                "dataset=facts_statements",
                "probe=text_baseline,logistic,gnll",
                "probe.test_on=[statements:a.csv]",
            ],
            [
                "dataset=facts_statements probe=text_baseline",
                "dataset=facts_statements probe=logistic probe.test_on=[statements:a.csv]",
                "dataset=facts_statements probe=gnll",
            ],
            ["probe.test_on goes to probe=logistic; probe=text_baseline, gnll has no use for it"],
        ),
        (["seed=0,0,1"], ["seed=0", "seed=1"], ["3 cells are 2: those that equal another one are kept once"]),
        (
            ["experiment=uncertainty", "quantization=none", "dataset=facts", "probe.layers=[1]"],
            [
                f"quantization=none dataset=facts probe={probe} experiment=uncertainty"
                + (" probe.layers=[1]" if probe == "logistic" else "")
                for probe in ("gnll", "semantic_entropy", "p_true", "logistic")
            ],
            ["probe.layers goes to probe=logistic; probe=gnll, semantic_entropy, p_true has no use for it"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else "",
)
def test_a_key_goes_to_the_choices_that_have_it(
    words: list[str], composed: list[str], said: list[str], capsys: Capture
) -> None:
    found = cells(*words)
    assert overrides(found) == composed
    assert all(cell.spec for cell in found), [cell.error for cell in found]
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["probe=gnll,logistic", "probe.layrs=all"], "no key probe.layrs; did you mean 'layers'?"),
        (["probe=gnll,p_true", "probe.layers=all"], "no key probe.layers; probe=ccs or control or"),
        (["seed=0,1", "probe.layers=all"], "no key probe.layers; probe=ccs or control or"),
        (["seed=0,1", "model.dtpye=float32"], "no key model.dtpye; did you mean 'dtype'?"),
        (
            ["dataset=facts,facts_rare", "dataset.answerable_only=true"],
            "no key dataset.answerable_only; dataset=",
        ),
        (["seed=range(0)"], "the grid has no cell"),
        (["model=tiny", "model=llama8b"], "model is given twice (model=tiny and model=llama8b)"),
    ],
)
def test_what_no_choice_has_is_refused(words: list[str], sentence: str, workdir: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        cells(*words)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_in_a_single_cell_a_key_that_its_choice_lacks_is_refused(command: Command) -> None:
    done = command("probe=gnll", "probe.layers=all")
    assert done.returncode == 2
    assert "the config has no key probe.layers" in done.stderr


def test_grids_of_the_command(command: Command, workdir: Path) -> None:
    """Flags, paths, a key of some choices and a name in one command; each cell is called by what is run."""
    rows = [{"question": f"Where is town {number}?", "answers": ["north"]} for number in range(40)]
    (workdir / "my data#1.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ("dataset=facts,my data#1.jsonl", "-m", "probe=gnll,logistic", "probe.layers=[1]", "action=plan")
    done = command(*words, "prompt.num_few_shot=1", "dataset.num_samples=20", "model.dtype=float32")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "probe.layers goes to probe=logistic; probe=gnll has no use for it\n"
    for name in ("facts-gnll", "facts-logistic", "my_data_1-gnll", "my_data_1-logistic"):
        assert f" tiny-none-{name} " in done.stdout
    assert "4 of 4 work" in done.stdout


def test_a_grid_runs_with_equal_cells_once(grid: Grid) -> None:
    few = ("dataset.num_samples=30", "decoding.max_new_tokens=3", "prompt.num_few_shot=1")
    ended = grid.run("probe=gnll,logistic", "probe.layers=[1],[2]", *few, "probe.split=random")
    assert ended.returncode == 0, ended.stderr
    assert "4 cells are 3" in ended.stderr
    assert grid.states() == ["done"] * 3
    assert sorted(record["choices"]["probe"] for record in grid.records().values()) == [
        "gnll",
        "logistic",
        "logistic",
    ]


def test_nothing_is_written_where_a_grid_is_refused(command: Command, workdir: Path) -> None:
    for words in (("seed=",), ("model=tiny,nope",), ("probe=gnll,p_true", "probe.layers=all"), ("seed=1,",)):
        done = command("-m", *words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert not list(workdir.iterdir()), words


def test_models_and_datasets_that_end_alike_are_told_apart(workdir: Path) -> None:
    found = cells("model=./a/llama,./b/llama,tiny", "dataset=x/s.csv,y/s.csv", "probe=gnll")
    assert [cell.spec.choices.name for cell in found if cell.spec] == [
        f"{model}-{quantization}-{data}-gnll"  # what is not there is not known to be stored in any way
        for model, quantization in (("a_llama", "auto"), ("b_llama", "auto"), ("tiny", "none"))
        for data in ("x_s.csv", "y_s.csv")
    ]
    assert len(set(cell_names(found))) == 6


def test_names_carry_the_overrides_that_tell_cells_apart() -> None:
    found = cells("probe=gnll,logistic", "device_map=cpu,auto", "seed=0", "probe.layers=[1],[2]")
    assert cell_names(found) == [
        "tiny-none-facts-gnll device_map=cpu",
        "tiny-none-facts-gnll device_map=auto",
        *(
            f"tiny-none-facts-logistic device_map={device_map} probe.layers={layers}"
            for device_map in ("cpu", "auto")
            for layers in ("[1]", "[2]")
        ),
    ]


def test_test_sets_are_renamed_with_the_dataset_they_are(workdir: Path) -> None:
    """So that a probe that is tested on its own dataset is known to be."""
    found = cells("dataset=x/s.csv,y/s.csv", "probe=logistic", "probe.test_on=[x/s.csv]")
    for cell, name in zip(found, ("x_s.csv", "y_s.csv"), strict=True):
        assert cell.spec is not None
        assert (cell.spec.choices.dataset, list(cell.spec.test_on)) == (name, ["x_s.csv"])


def test_test_sets_follow_each_cells_own_seed(grid: Grid) -> None:
    """Through the command, with a dataset of the user's own; and they travel with the cells."""
    file = grid.folder / "numbers.csv"
    rows = [f"{number} is even.,{int(number % 2 == 0)}" for number in range(60)]
    file.write_text("\n".join(["statement,label", *rows]) + "\n")
    own = {
        "defaults": ["/schema/dataset/statements@_here_", "_self_"],
        "path": str(file),
        "num_samples": 50,
        "seed": "${seed}",
    }
    grid.add("dataset", "mine", own)
    words = ("dataset=facts_statements", "dataset.num_samples=40", "probe=logistic", "probe.layers=[1]")
    ended = grid.run(*words, "seed=3,4", "probe.test_on=[mine]")
    assert ended.returncode == 0, ended.stderr
    specs = SweepFolder(grid.folder / "results", grid.sweep().name).read_cells()
    assert [spec.test_on["mine"].seed for spec in specs if spec] == [3, 4]
    for record in grid.records().values():
        assert 0 <= record["metrics"]["transfer_auroc_mine"] <= 1


def test_a_grid_from_python() -> None:
    composed, options = compose_grid(["hydra/launcher=slurm", "hydra.launcher.partition=é", "seed=0,1"])
    assert len(composed) == 2
    assert type(options) is SlurmOptions
    assert options.partition == "é"
    assert type(compose_grid(["seed=0"])[1]) is LocalOptions
    with pytest.raises(ConfigError, match="hydra/launcher=basic takes no grid"):
        compose_grid(["hydra/launcher=basic"])


def test_the_same_grid_is_the_same_sweep_however_it_is_composed(grid: Grid) -> None:
    """Its cells are what they were: the second command computes nothing."""
    few = ("dataset.num_samples=4", "decoding.max_new_tokens=2", "prompt.num_few_shot=0")
    assert grid.run("probe=gnll,verbalized", *few).returncode == 0
    first = json.loads((grid.sweep() / "manifest.json").read_text())
    again = grid.run("probe=gnll,verbalized", *few)
    assert "2 done already" in again.stderr
    assert json.loads((grid.sweep() / "manifest.json").read_text())["id"] == first["id"]


LATE = """
from probegrid.judges import Evidence, Read, Rises, judge


@judge(Read.greedy, rises=Rises.confidence)
def late_words(evidence: Evidence) -> float:
    \"\"\"The number of characters of the greedy answer.\"\"\"
    return float(len(evidence.greedy.text))
"""


def test_a_judge_that_comes_later_scores_the_done_cells_of_a_sweep_from_the_store(grid: Grid) -> None:
    few = ("probe=gnll,mass_mean", "probe.layers=[4]", "dataset.num_samples=60", "decoding.max_new_tokens=3")
    assert grid.run(*few).returncode == 0
    before, store = grid.numbers(), sorted((grid.folder / "store").rglob("*.*"))
    read = {file: file.stat().st_mtime_ns for file in store}
    (grid.folder / "late_judge.py").write_text(LATE)
    late = replace(grid, environment={**grid.environment, "PROBEGRID_PLUGINS": "late_judge"}, anew=True)
    ended = late.run(*few)
    assert ended.returncode == 0, ended.stderr
    assert "2 cells: 0 done already, 0 on their way, 2 to run" in ended.stderr
    after = late.numbers()
    assert after.keys() == before.keys()
    for key, numbers in after.items():
        assert before[key].items() <= numbers.items()
        assert {"late_words_auroc", "late_words_auroc_ci_low"} <= numbers.keys()
        folder = grid.folder / "results" / key
        tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("other_scores", "answers")]
        both = tables[0].merge(tables[1], on="example_id")
        assert (both.late_words == both.answer.str.len()).all()
    assert {file: file.stat().st_mtime_ns for file in sorted((grid.folder / "store").rglob("*.*"))} == read
    late.look("action=report")
    assert "late words" in (grid.folder / "report" / "index.html").read_text()
    assert "2 done already" in late.run(*few).stderr
    (grid.folder / "late_judge.py").write_text(LATE.replace("late_words", "later_words"))
    shutil.rmtree(grid.folder / "store")
    gone = late.run(*few)
    assert gone.returncode == 0, gone.stderr
    said = "".join(file.read_text() for file in late.sweep().rglob("*.log")) + gone.stderr
    assert "no scores by later_words: its readings are not in the store any more" in said
    assert late.numbers() == after
