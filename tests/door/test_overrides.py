"""Words that a person types mean what they say, whatever Hydra's grammar makes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probegrid.compose import compose_cell
from probegrid.door.overrides import in_grammar

PATHS = [
    "/data/a=b.csv",
    "/modèles/mon modèle #1",
    "/x/é&b",
    "/a,b/c",
    "/it's/here",
    "/100%/{x}/[old]/file(1).csv",
    "1e5",
    "007",
    "true",
    "a: b",
    "Ünïcode/名前",
    "[old]/x",
    "(x)",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["model.path", "store_dir", "report.folder", "model.revision"])
def test_a_text_is_taken_as_it_is_typed(key: str, path: str) -> None:
    config = compose_cell([f"{key}={path}"]).config
    part, _, name = key.rpartition(".")
    assert getattr(getattr(config, part) if part else config, name) == path


@pytest.mark.slow
@settings(max_examples=60)
@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="$\\\"'", exclude_categories=["Cs", "Cc"]),
        min_size=1,
        max_size=60,
    ).map(lambda text: f"/{text}")
)
def test_any_absolute_path_is_taken_as_it_is_typed(path: str) -> None:
    """But for blanks at its end, which Hydra drops from a text that it can read."""
    assert compose_cell([f"model.path={path}"]).config.model.path.rstrip() == path.rstrip()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("store_dir='a b'", "a b"),
        ('store_dir="x, y"', "x, y"),
        (r"store_dir=a\ b", "a b"),
        (r"store_dir=a\,b", "a,b"),
        ("store_dir=${results_dir}/store", "results/store"),
        ("store_dir=${oc.env:HOME}/é", f"{os.environ.get('HOME')}/é"),
        ("store_dir=~/x", str(Path.home() / "x")),
        ("store_dir=~", str(Path.home())),
        ("store_dir=a~b", "a~b"),
    ],
)
def test_quotes_escapes_interpolations_and_the_home_folder(word: str, value: str) -> None:
    assert compose_cell([word]).config.store_dir == value


def test_null_is_no_text() -> None:
    assert compose_cell(["model.revision=null"]).config.model.revision is None


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("dataset.path=a.csv,b c#.csv", "dataset.path=a.csv,'b c#.csv'"),
        ("dataset.path=a.csv, é.csv", "dataset.path=a.csv,'é.csv'"),
        ("dataset.path='a,b',c", "dataset.path='a,b',c"),
        ("dataset.path=choice(a,b)", "dataset.path=choice(a,b)"),
        ("model=tiny,./a=b,~/x", "model=tiny,'./a=b','~/x'"),
        ("probe.test_on=[a],[é:b]", "probe.test_on=[a],['é:b']"),
        ("seed=0,1", "seed=0,1"),
        ("probe.C=[0.1],[1]", "probe.C=[0.1],[1]"),
    ],
)
def test_in_a_grid_a_comma_separates_values(word: str, values: str) -> None:
    assert in_grammar(word, grid=True) == values


def test_in_a_grid_a_file_may_have_a_comma_in_its_name(workdir: Path) -> None:
    (workdir / "asked 1,2.jsonl").touch()
    for key in ("dataset", "dataset.path"):
        assert in_grammar(f"{key}=asked 1,2.jsonl", grid=True) == f"{key}='asked 1,2.jsonl'"
        assert in_grammar(f"{key}=asked 1,3.jsonl", grid=True) == f"{key}=asked 1,3.jsonl"


def test_lists_of_texts_hold_texts() -> None:
    spec = compose_cell(["prompt.stop=[é,a b,#,1]"])
    assert spec.config.prompt.stop == ["é", "a b", "#", "1"]


def test_a_key_of_the_users_own_choice_needs_no_plus() -> None:
    spec = compose_cell(["model.template_kwargs.enable_thinking=false"])
    assert spec.config.model.template_kwargs == {"enable_thinking": False}


def test_a_name_that_looks_like_no_is_a_name() -> None:
    for word in ("false", "False", "'false'", "nothing"):
        probe = compose_cell(["probe=mahalanobis", f"probe.away={word}"]).config.probe
        assert getattr(probe, "away").name == word.strip("'").lower()  # noqa: B009


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_part_that_is_null_is_given_whole_or_key_by_key(is_whole: bool) -> None:
    """So that any model is planned by its facts, as an error says."""
    names = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "context")
    facts = dict(zip(names, (3, 64, 4, 2, 16, 128, 9, 50), strict=True))
    whole = f"model.architecture={{{', '.join(f'{name}: {value}' for name, value in facts.items())}}}"
    spec = compose_cell(
        [whole] if is_whole else [f"model.architecture.{name}={facts[name]}" for name in facts]
    )
    found = spec.config.model.architecture
    assert found is not None
    assert {name: getattr(found, name) for name in names} == facts


def test_a_mapping_is_given_whole() -> None:
    spec = compose_cell(["model.template_kwargs={a: 1, b: [x, y]}"])
    assert spec.config.model.template_kwargs == {"a": 1, "b": ["x", "y"]}


def test_probe_from_is_from_cell() -> None:
    assert compose_cell(["probe.from=a b#"]).config.probe.from_cell == "a b#"
