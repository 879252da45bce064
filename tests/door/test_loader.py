"""What is composed is what Hydra composes, once for all cells that share their choices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from probegrid.cli import main
from probegrid.compose import compose_cell, register
from probegrid.door import loader as loaders
from probegrid.door.loader import CONFIG_MODULE, ROOT, CellLoader, hydra_1_3, search_path
from probegrid.embedded import checkpoint_dir

WORDS = [
    [],
    ["model=llama8b", "dataset=squad", "probe=logistic", "probe.layers=[3]", "seed=4"],
    ["experiment=ntml_layer22", "store_dir=x", "probe.split=random"],
    ["probe=p_true", "decoding.temperature=0.5", "prompt=chat", "hydra.verbose=true"],
    ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "model={dtype: float16}"],
    ["seed=1", "seed=2", "seed=1"],
]


@pytest.fixture
def loader() -> CellLoader:
    register()
    with hydra_1_3():
        return CellLoader(search_path())


def plain(config: DictConfig) -> object:
    return OmegaConf.to_container(
        OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    )


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_cell_is_composed_as_hydra_does(loader: CellLoader, words: list[str]) -> None:
    with hydra_1_3():
        master = loader.load_configuration(ROOT, ["seed=range(2)", "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        ours = [
            loader.load_configuration(ROOT, words, RunMode.RUN),
            *(loader.load_cell(master, words).config for _ in range(2)),
        ]
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        theirs = compose(ROOT, words, return_hydra_config=True)
    for config in ours:
        assert plain(config) == plain(theirs)
        assert config.hydra.runtime.choices == theirs.hydra.runtime.choices
        assert config.hydra.launcher == theirs.hydra.launcher
        assert config.hydra.overrides.task == theirs.hydra.overrides.task
        assert config.hydra.job.override_dirname == theirs.hydra.job.override_dirname


def test_a_command_is_composed_once(
    monkeypatch: pytest.MonkeyPatch, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a grid, to see whether its preset is one, as a cell, and to name its model by its path."""
    composed, compose_all = [], ConfigLoaderImpl._load_configuration_impl
    monkeypatch.setattr(
        ConfigLoaderImpl,
        "_load_configuration_impl",
        lambda *words, **options: composed.append(options["overrides"]) or compose_all(*words, **options),
    )
    monkeypatch.setattr(loaders, "_loaders", {})
    path = checkpoint_dir()
    for words in (["seed=1"], ["seed=2"], [f"model={path}"], ["model=custom", f"model.path={path}"]):
        monkeypatch.setattr(sys, "argv", ["probegrid", "action=plan", "tracking=none", *words])
        main()
    assert composed == [["tracking=none"], ["tracking=none", "model=custom"]]
    assert "loads 6 of 6 blocks" in capsys.readouterr().out


@pytest.mark.slow
def test_what_the_first_to_compose_has_read_serves_the_next() -> None:
    """In a process that knew no launcher before."""
    code = (
        "from probegrid.compose import compose_cell; from probegrid.door import loader; compose_cell([]); "
        "known = [*loader._loaders.values()]; print([loader.shared_loader()] == known)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.slow
def test_what_a_choice_says_of_its_path_is_what_composing_says(loader: CellLoader) -> None:
    stated = 0
    for group in ("model", "dataset"):
        for choice in loader.get_group_options(group)[::5]:  # a tenth of a second each
            with hydra_1_3():
                part = loader.load_configuration(ROOT, [f"{group}={choice}"], RunMode.RUN)[group]
            composed = None if OmegaConf.is_missing(part, "path") else part.path
            assert loader.own_path(group, choice) == composed, choice
            stated += loader._stated_path(f"{group}/{choice}") is not None
    assert stated > 10


def test_a_choice_that_a_preset_leaves_open_is_asked_for_each_time(
    monkeypatch: pytest.MonkeyPatch, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A grid's master config does without, and is no cell's."""
    (workdir / "mine" / "experiment").mkdir(parents=True)
    preset = "# @package _global_\ndefaults:\n  - override /model: ???\n"
    (workdir / "mine" / "experiment" / "open.yaml").write_text(preset)
    words = ["probegrid", "--config-dir", "mine", "action=plan", "experiment=open"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert "You must specify 'model'" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*words, "model=tiny"])
    main()


def test_a_cell_knows_the_folder_it_is_composed_in(
    loader: CellLoader, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (workdir / name).mkdir()
        monkeypatch.chdir(workdir / name)
        with hydra_1_3():
            composed = loader.load_configuration(ROOT, [], RunMode.RUN)
        assert composed.hydra.runtime.cwd == str(workdir / name)


def test_one_cell_never_changes_another(loader: CellLoader) -> None:
    with hydra_1_3():
        master = loader.load_configuration(ROOT, ["seed=range(2)", "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        first = loader.load_cell(master, ["seed=1", "prompt.stop=[x]"]).config
        first.model.path = "changed"
        second = loader.load_cell(master, ["seed=2"]).config
    assert (second.seed, second.model.path, len(second.prompt.stop)) == (2, "embedded:tiny", 4)


def test_python_leaves_a_hydra_application_around_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text("answer: 42\n")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.2", job_name="theirs"):
        before = globals_of_hydra()
        assert compose_cell(["seed=7"]).config.seed == 7
        assert globals_of_hydra() == before
        assert compose("app").answer == 42


def globals_of_hydra() -> tuple[object, ...]:
    return (
        VersionBase.instance().getbase(),
        GlobalHydra.instance().hydra,
        HydraConfig.instance().cfg,
        JobRuntime.instance().get("name"),
    )
