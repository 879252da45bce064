"""Every line of ``docs/own_parts.md``, from a wheel: parts of one's own are like ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import own_parts
import pytest
import yaml

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def outside(installed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> Program:
    """Run a program of an environment with the wheel, in a folder with the page's files, its variable set.

    Forked: that the wheel's programs start is for `test_packaging`, and that these parts are found, for the first test.
    """
    own_parts.write_files(tmp_path)

    def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return installed(
            program,
            *arguments,
            cwd=tmp_path,
            check=False,
            start=forked.run,
            PROBEGRID_PLUGINS="my_parts",
            HF_HUB_OFFLINE="1",
            **environment,
        )

    return run


def results(folder: Path) -> list[dict[str, dict[str, object]]]:
    return [json.loads(file.read_text()) for file in sorted((folder / "results").glob("*/result.json"))]


def test_the_commands_of_the_page(outside: Program, tmp_path: Path) -> None:
    for command in own_parts.commands():
        done = outside("probegrid", *command)
        assert done.returncode == 0, done.stderr
    found = results(tmp_path)
    chosen = {(each["choices"]["probe"], each["choices"]["dataset"]) for each in found}
    assert chosen == {("hesitation", "sums"), ("gnll", "sums"), ("hesitation", "facts"), ("gnll", "facts")}
    assert {each["status"] for each in found} == {"done"}
    assert len(found) == 5  # one of them under a rule of its own
    assert all(each["metrics"]["n"] == 20 for each in found)
    assert all("worst_half_auroc" in each["metrics"] for each in found)


def test_the_contracts_of_the_page(outside: Program) -> None:
    # hypothesis's plugin, which this does without, minds what is imported before it
    plugins = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    done = outside("python", "-m", "pytest", "-q", *plugins, "test_my_parts.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_stand_in_the_help_and_their_mistakes_are_sentences(outside: Program, tmp_path: Path) -> None:
    shown = outside("probegrid", "--help").stdout
    assert "hesitation" in shown
    assert "sums" in shown
    for wrong, said in {
        "probe.weight=2": "probe.weight=2.0 lies outside 0 to 1",
        "probe.wieght=1": "did you mean 'weight'",
        "dataset.largest=x": "dataset.largest=x is not allowed",
        "dataset.rule=close_enuf": "did you mean 'close_enough'",
    }.items():
        done = outside("probegrid", "probe=hesitation", "dataset=sums", "tracking=none", wrong)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "results").exists()


def test_a_change_of_its_source_is_another_cell(outside: Program, tmp_path: Path) -> None:
    command = own_parts.commands()[0]
    assert outside("probegrid", *command).returncode == 0
    assert "is done already" in outside("probegrid", *command).stderr
    file = tmp_path / "my_parts.py"
    file.write_text(file.read_text().replace("true - false", "false - true"))
    assert "is done already" not in outside("probegrid", *command).stderr
    assert len(results(tmp_path)) == 2


@pytest.mark.slow
def test_entry_points_of_a_package_are_found(tmp_path: Path) -> None:
    """The same parts, installed: declared as the page declares them."""
    site = tmp_path / "site"
    site.mkdir()
    own_parts.write_files(site)
    info = site / "my_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
    lines = own_parts.entry_points().replace('project.entry-points."', "").replace('"]', "]").replace('"', "")
    (info / "entry_points.txt").write_text(lines)
    code = (
        "from probegrid.compose import compose_cell; from probegrid.evaluation.rules import all_rules; "
        "spec = compose_cell(['probe=hesitation', 'dataset=sums', 'seed=4']); "
        "print(type(spec.config.probe).__name__, type(spec.config.dataset).__name__, spec.config.dataset.seed, "
        "*all_rules())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    first, *rules = done.stdout.partition(" 4 ")[0], *done.stdout.partition(" 4 ")[2].split()
    assert first == "Hesitation Sums"
    assert (rules[:2], rules[-1]) == (["squad", "trivia_qa"], "close_enough")
    (info / "entry_points.txt").write_text("[probegrid.probes]\nbroken = nowhere_at_all:Probe\n")
    broken = subprocess.run(
        [sys.executable, "-m", "probegrid", "tracking=none"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert broken.returncode == 2
    assert "an entry point of my-parts, cannot be imported (ModuleNotFoundError" in broken.stderr
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("no_such_module", "the module no_such_module cannot be imported"),
        ("no_such_module", "run where no_such_module.py lies, put its folder on PYTHONPATH"),
        ("my_parts.py", "modules are named, not files: PROBEGRID_PLUGINS=my_parts."),
        ("my_parts,", None),
    ],
)
def test_a_module_that_is_not_there_is_said(outside: Program, named: str, said: str | None) -> None:
    done = outside("python", "-c", with_plugins(named), "action=plan")
    assert (done.returncode == 2) is (said is not None), done.stderr
    assert said is None or said in done.stderr


def test_a_name_that_is_taken_is_said(outside: Program, tmp_path: Path) -> None:
    ours = (tmp_path / "my_parts.py").read_text()
    (tmp_path / "gnll.py").write_text(ours.replace('"hesitation"', '"gnll"'))
    taken = outside("python", "-c", with_plugins("gnll"), "action=plan")
    assert taken.returncode == 2
    assert "is called gnll, and so is probegrid.probes.gnll" in taken.stderr


def with_plugins(named: str) -> str:
    """The command as code, with other modules named than the page's."""
    return f"import os; os.environ['PROBEGRID_PLUGINS'] = {named!r}; from probegrid.cli import main; main()"


def test_the_config_of_a_part_is_recorded(outside: Program, tmp_path: Path) -> None:
    assert outside("probegrid", *own_parts.commands()[0], "probe.weight=0.25").returncode == 0
    (config,) = (tmp_path / "results").glob("*/config.yaml")
    assert yaml.safe_load(config.read_text())["probe"]["weight"] == 0.25
