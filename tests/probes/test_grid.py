"""Probes of both families as one grid: each brings its decoding, and what cannot be is refused before anything runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from classifiers import save_classifier

from probegrid.cell.prepare import prepare
from probegrid.compose import compose_cell
from probegrid.sweep.check import Checker
from probegrid.sweep.grid import ComposedCell
from probegrid.sweep.options import LauncherOptions

Command = Callable[..., "subprocess.CompletedProcess[str]"]
FEW = "dataset.num_samples=40"
PROBES = ("gnll", "semantic_entropy", "p_true", "logistic")


def test_probes_of_both_families_are_one_grid_of_questions(command: Command) -> None:
    done = command("action=plan", f"probe={','.join(PROBES)}", "dataset=facts,facts_rare", FEW, "-m")
    assert done.returncode == 0, done.stderr
    assert "8 of 8 work" in done.stdout


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_changes_the_decoding_and_nothing_else(probe: str) -> None:
    alone, cell = compose_cell([]).config, compose_cell([f"probe={probe}"]).config
    samples = probe in ("semantic_entropy", "p_true")
    assert (cell.decoding.do_sample, cell.decoding.num_generations) == (samples, 10 if samples else 1)
    assert (cell.prompt, cell.dataset, cell.model) == (alone.prompt, alone.dataset, alone.model)
    given = compose_cell([f"probe={probe}", "decoding=sample", "decoding.num_generations=4"]).config
    assert given.decoding.num_generations == 4


def test_a_preset_may_choose_such_a_probe() -> None:
    spec = compose_cell(["experiment=ultra_large", "probe=p_true", "model=llama70b"])
    assert spec.choices.probe == "p_true"
    assert spec.config.decoding.do_sample


def test_a_sweep_knows_a_cell_by_the_key_it_gets_when_it_runs(workdir: Path) -> None:
    (workdir / "other.csv").write_text("statement,label\nTwo is even.,1\nTwo is odd.,0\n")
    classifier = save_classifier(workdir / "classifier")
    keys = set()
    for overrides in (
        ["probe=logistic", "dataset=facts_statements"],
        ["probe=logistic", "dataset=facts_statements", "probe.test_on=[statements:other.csv]"],
        ["probe=semantic_entropy"],
        ["probe=semantic_entropy", f"probe.entailment={classifier}"],
    ):
        spec = compose_cell([*overrides, FEW])
        checked = Checker(LauncherOptions()).check(ComposedCell((*overrides, FEW), spec))
        assert checked.error is None
        assert checked.key == prepare(spec).key
        keys.add(checked.key)
    assert len(keys) == 4


@pytest.mark.parametrize("overrides", [("probe=p_true",), ("probe=gnll,semantic_entropy", "-m")])
def test_greedy_decoding_is_refused_with_one_sentence_and_status_2(
    overrides: tuple[str, ...], command: Command, workdir: Path
) -> None:
    done = command("decoding=greedy", *overrides)
    assert done.returncode == 2
    assert (
        "samples of each question, and 0 are drawn; drop decoding=greedy or use decoding=sample"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not list(workdir.glob("results/*/result.json"))
    assert not (workdir / "store").exists()
