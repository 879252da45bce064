"""Paths and hub ids stand for names, and a cell is called by what is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from probegrid.compose import compose_cell
from probegrid.door.places import names_apart, short_name
from probegrid.errors import ConfigError

Own = Callable[[str, str, Mapping[str, object]], Path]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Qwen/Qwen3-8B", "Qwen3-8B"),
        ("./folder", "folder"),
        ("/abs/my model", "my_model"),
        ("~/x", "x"),
        ("a/b/", "b"),
        ("/modèles/modèle #1", "modèle_1"),
    ],
)
def test_a_path_or_an_id_for_a_model(path: str, name: str) -> None:
    spec = compose_cell([f"model={path}", "model.dtype=float16"])
    assert spec.config.model.path == str(Path(path).expanduser() if path.startswith("~") else path)
    assert spec.config.model.dtype.name == "float16"
    assert spec.choices.name == f"{name}-auto-facts-gnll"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("my.jsonl", "my"),
        ("dir/x.csv", "x"),
        ("./folder", "folder"),
        ("/d/v1.2", "v1.2"),
        ("~/y.parquet", "y"),
        ("owner/set", "set"),
    ],
)
def test_a_path_or_an_id_for_a_dataset(path: str, name: str) -> None:
    spec = compose_cell([f"dataset={path}", "dataset.num_samples=3", "seed=5"])
    dataset = spec.config.dataset
    assert dataset.path == str(Path(path).expanduser() if path.startswith("~") else path)
    assert (type(dataset).__name__, dataset.num_samples, dataset.seed) == ("JsonlConfig", 3, 5)
    assert spec.choices.dataset == name


def test_the_current_folder_is_called_by_its_name(workdir: Path) -> None:
    assert compose_cell(["model=."]).choices.model == workdir.name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["model.path=/x/llama"], "llama-auto-facts-gnll"),
        (["model=llama8b", "model.path=/x/y"], "y-auto-facts-gnll"),
        (["model=tiny", "model.path=embedded:tiny"], "tiny-none-facts-gnll"),
        (["model=llama8b"], "llama8b-auto-facts-gnll"),
        (["dataset=squad", "dataset.path=dev-v1.1.json"], "tiny-none-dev-v1.1-gnll"),
        (["dataset=squad", "dataset.path=rajpurkar/squad_v2"], "tiny-none-squad_v2-gnll"),
        (["dataset=squad"], "tiny-none-squad-gnll"),
        (["dataset=squad", "dataset.path=./squad.json"], "tiny-none-squad-gnll"),
        (["dataset=statements", "dataset.path=cities.csv"], "tiny-none-cities-gnll"),
    ],
)
def test_a_cell_is_called_by_what_is_run(words: list[str], name: str) -> None:
    assert compose_cell(words).choices.name == name


@pytest.mark.parametrize(
    ("word", "name"),
    [("model=./tiny", "work_tiny"), ("dataset=facts.jsonl", "facts.jsonl"), ("dataset=d/squad", "d_squad")],
)
def test_no_path_is_called_as_another_choice_is(workdir: Path, word: str, name: str) -> None:
    assert getattr(compose_cell([word]).choices, word.partition("=")[0]) == name


def test_a_choice_of_the_users_own_keeps_its_name(own: Own, workdir: Path) -> None:
    """Whether its file names the path, takes it from another choice, or from an environment variable."""
    own("model", "mine", {"path": "/models/llama"})
    own("model", "mine2", {"defaults": ["mine", "_self_"], "dtype": "float16"})
    own("model", "mine3", {"path": "~/${seed}"})
    own("dataset", "sub/mine", {"defaults": ["/schema/dataset/jsonl@_here_", "_self_"], "path": "a.csv"})
    for name in ("mine", "mine2", "mine3"):
        assert compose_cell([f"model={name}"], config_dir="groups").choices.model == name
        overridden = compose_cell([f"model={name}", "model.path=/x/other"], config_dir="groups")
        assert overridden.choices.model == "other"
    spec = compose_cell(["dataset=sub/mine"], config_dir="groups")
    assert (spec.config.dataset.path, spec.choices.dataset) == ("a.csv", "sub/mine")


def test_a_preset_that_names_another_path(own: Own) -> None:
    own("experiment", "mine", {"model": {"path": "/x/other"}, "experiment": "mine"})
    file = Path("groups/experiment/mine.yaml")
    file.write_text(f"# @package _global_\n{file.read_text()}")
    assert compose_cell(["experiment=mine"], config_dir="groups").choices.model == "other"


def test_two_words_for_one_path_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"both say where the model is"):
        compose_cell(["model=./a", "model.path=./b"])


def test_a_folder_without_a_slash_is_pointed_out(workdir: Path) -> None:
    (workdir / "llama").mkdir()
    with pytest.raises(ConfigError, match=r"the folder or file of that name is model=\./llama"):
        compose_cell(["model=llama"])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/llama", "/b/llama"], ["a_llama", "b_llama"]),
        (["/a/x.csv", "/a/x.jsonl"], ["x.csv", "x.jsonl"]),
        (["/a/c/x.csv", "/b/c/x.csv"], ["a_c_x.csv", "b_c_x.csv"]),
        (["Q/m", "/r/m"], ["Q_m", "r_m"]),
        (["/a b/m", "/a_b/m"], ["a_b_m_1", "a_b_m_2"]),
        (["/a/x", "/a/y"], ["x", "y"]),
    ],
)
def test_paths_that_end_alike_are_told_apart(paths: list[str], names: list[str]) -> None:
    assert names_apart(paths) == names


def test_a_short_name_is_longer_where_it_is_taken() -> None:
    assert short_name("/a/b.csv", taken=["b", "b.csv"]) == "a_b.csv"
