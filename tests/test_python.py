"""What Python offers: each function does what the command would, inside another Hydra application too."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import forked
import pytest

import probegrid
from probegrid.compose import compose_cell
from probegrid.errors import ConfigError, RunError, StoreError

FEW = ("dataset.num_samples=6", "decoding.max_new_tokens=4", "tracking=none")


def test_what_is_public() -> None:
    assert probegrid.__all__ == ["__version__", "load", "plan", "report", "run", "sweep"]


def test_a_cell_is_run_and_loaded_by_its_key_or_its_folder(workdir: Path) -> None:
    result = probegrid.run(FEW)
    for again in (
        probegrid.load(result.key),
        probegrid.load(result.folder),
        probegrid.load(str(result.folder)),
    ):
        assert again.was_done
        assert (again.key, again.metrics) == (result.key, result.metrics)
        assert again.notes.keys() == result.notes.keys()
        assert again.tables["answers"].equals(result.tables["answers"])
    with pytest.raises(ConfigError, match="holds no recorded cell"):
        probegrid.load("0123456789abcdef")


def test_a_table_that_is_not_as_it_was_written_is_named(workdir: Path) -> None:
    result = probegrid.run(FEW)
    (result.folder / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"scores\.parquet .*; run the command of its cell again"):
        _ = probegrid.load(result.key).tables
    (result.folder / "scores.parquet").unlink()
    with pytest.raises(StoreError, match=r"scores\.parquet is missing"):
        _ = probegrid.load(result.key).tables


@pytest.mark.slow
def test_the_environment_names_the_folders_that_are_not_typed(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROBEGRID_STORE", "kept/store")
    monkeypatch.setenv("PROBEGRID_RESULTS", "kept/results")
    result = probegrid.run(FEW)
    assert result.folder == Path("kept/results", result.key)
    assert any(Path("kept/store").iterdir())
    assert probegrid.load(result.key).metrics == result.metrics
    typed = probegrid.run([*FEW, "results_dir=typed", "store_dir=of-its-own"])
    assert typed.key == result.key
    assert typed.folder.parent == Path("typed")
    assert Path("of-its-own").is_dir()
    assert not Path("results").exists()


def test_an_empty_variable_is_none_and_a_home_folder_is_found(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(workdir / "home"))
    monkeypatch.setenv("PROBEGRID_STORE", "~/store")
    monkeypatch.setenv("PROBEGRID_RESULTS", "")
    config = compose_cell(FEW).config
    assert (config.store_dir, config.results_dir) == (str(workdir / "home" / "store"), "results")


def test_a_plan_is_of_what_a_run_would_do(workdir: Path) -> None:
    plan = probegrid.plan([*FEW, "device_map=cpu"])
    assert plan is not None
    assert plan.blocks == 6
    assert probegrid.plan(["model=llama70b", "quantization=nf4", "device_map=4x11gb"]) is not None
    assert probegrid.plan(["dataset=facts_statements", "probe=text_baseline"]) is None
    with pytest.raises(ConfigError, match="holds statements"):
        probegrid.plan(["dataset=facts_statements", "probe=gnll"])
    assert not list(workdir.iterdir())


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("run", ["action=plan"], "call probegrid.plan"),
        ("run", ["action=status"], "use the command, probegrid action=status"),
        ("plan", ["action=report"], "call probegrid.report"),
        ("run", ["experiment=smoke"], "experiment=smoke is a grid, not a cell; call probegrid.sweep"),
        ("run", ["seed=1,2"], r"add -m to run a grid of them \(in Python: probegrid.sweep\)"),
        ("sweep", ["hydra.launcher.detach=true", *FEW], "waits for its cells"),
    ],
)
def test_a_function_does_nothing_else(workdir: Path, name: str, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        getattr(probegrid, name)(overrides)
    assert not list(workdir.iterdir())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            "probe=gnll seed=1",
            r"are one text, 'probe=gnll seed=1'; give a list of them: \['probe=gnll', 'seed=1'\]",
        ),
        ({"probe": "gnll"}, "is no list of overrides"),
        (None, "None is no list of overrides"),
        (["seed=1", 2], "is no list of overrides"),
        (["-m", "seed=1,2"], "-m is a flag of the command; call probegrid.sweep without it"),
        (["--config-dir=mine"], "give config_dir=FOLDER beside the overrides"),
        (["--cfg", "job"], "--cfg is a flag of the command; leave it out"),
    ],
)
def test_what_is_no_list_of_overrides_is_refused_in_words(
    workdir: Path, overrides: object, said: str
) -> None:
    for function in (probegrid.run, probegrid.plan, probegrid.report, probegrid.sweep):
        with pytest.raises(ConfigError, match=said):
            function(overrides)  # type: ignore[operator]
    assert not list(workdir.iterdir())


@pytest.mark.slow
def test_a_grid_is_run_and_reported(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = probegrid.sweep([*FEW, "prompt.num_few_shot=0,5"])
    assert [result.metrics["n"] for result in results] == [6, 6]
    assert len({result.key for result in results}) == 2
    capfd.readouterr()
    report = probegrid.report(["report.compare=prompt.num_few_shot"])
    assert capfd.readouterr().out == ""
    assert (workdir / "report" / "index.html").is_file()
    assert report is not None
    with pytest.raises((ConfigError, RunError), match="cannot work"):
        probegrid.sweep([*FEW, "dataset=facts_statements", "probe=gnll,logistic", "probe.layers=[99]"])


@pytest.mark.slow
def test_a_folder_of_ones_own_groups(workdir: Path) -> None:
    (workdir / "groups" / "prompt").mkdir(parents=True)
    (workdir / "groups" / "prompt" / "mine.yaml").write_text('instruction: "Say it.\\n"\nnum_few_shot: 0\n')
    result = probegrid.run([*FEW, "prompt=mine"], config_dir=workdir / "groups")
    assert result.tables["answers"].prompt.str.startswith("Say it.\n").all()
    assert len(probegrid.sweep([*FEW, "prompt=mine,brief"], config_dir=workdir / "groups")) == 2


@pytest.mark.slow
def test_inside_a_hydra_application_its_state_is_as_before(workdir: Path) -> None:
    (workdir / "conf").mkdir()
    (workdir / "conf" / "app.yaml").write_text("name: theirs\n")
    (workdir / "app.py").write_text(
        textwrap.dedent(
            f"""
            import hydra, probegrid
            from hydra.core.global_hydra import GlobalHydra
            from hydra.core.hydra_config import HydraConfig

            @hydra.main(version_base="1.2", config_path="conf", config_name="app")
            def main(config):
                before = GlobalHydra.instance().hydra, HydraConfig.get().job.name
                print(probegrid.run({list(FEW)}).metrics["n"], probegrid.plan({list(FEW)}).blocks)
                assert (GlobalHydra.instance().hydra, HydraConfig.get().job.name) == before
                assert config.name == "theirs"
                from hydra import compose
                print(compose("app").name)

            main()
            """
        )
    )
    done = forked.run([sys.executable, "app.py", "hydra.run.dir=."], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6", "6", "theirs"]
