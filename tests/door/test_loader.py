"""What is composed is what Hydra composes, once for all cells that share their choices."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobRuntime
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf

from probegrid.compose import compose_cell, register
from probegrid.door.loader import CONFIG_MODULE, ROOT, CellLoader, hydra_1_3, search_path

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
