"""Every YAML and every preset's whole grid composes; what is wrong is said in one sentence; composing is light."""

from __future__ import annotations

import ast
import inspect
import itertools
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hypothesis import given, settings
from hypothesis import strategies as st

import probegrid
from probegrid import schema
from probegrid.cli import main
from probegrid.compose import compose_cell, register
from probegrid.door.loader import CONFIG_MODULE
from probegrid.errors import ConfigError
from probegrid.schema import Config, Dtype, to_plain
from probegrid.sweep.grid import compose_grid

CONF = Path(probegrid.__file__).parent / "conf"
HEAVY = ("torch", "transformers", "mlflow", "sklearn", "matplotlib", "datasets")
CONTRACT = {
    "model": "tiny llama1b qwen1_5b llama8b qwen7b mistral7b mixtral8x7b llama70b llama33_70b qwen72b mistral_large "
    "custom",
    "quantization": "none int8 nf4",
    "device_map": "auto cpu single balanced 4x11gb 2xh100",
    "dataset": "facts facts_rare facts_statements trivia_qa squad ntml statements jsonl",
    "prompt": "brief chat",
    "decoding": "greedy sample",
    "tracking": "mlflow none",
    "probe": "gnll semantic_entropy p_true",
    "experiment": "smoke sizes uncertainty ultra_large",
}


def chosen() -> list[dict[str, str]]:
    """Cells that choose every name that has a YAML, one of each group at a time; the presets are left out."""
    names: dict[str, list[str]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        group = file.parent.relative_to(CONF).as_posix()
        if group not in (".", "experiment"):
            names.setdefault(group, []).append(file.stem)
    quantizations = names.pop("quantization")  # of the embedded model: what one is read as, the model decides
    cells = itertools.zip_longest(*([(group, name) for name in names[group]] for group in names))
    return [dict(filter(None, cell)) for cell in cells] + [{"quantization": name} for name in quantizations]


def presets() -> list[str]:
    return sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


def params_of(preset: str) -> list[str]:
    """What a preset sweeps over, as overrides."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        composed = compose("config", [f"experiment={preset}"], return_hydra_config=True)
    return [f"{key}={value}" for key, value in (composed.hydra.sweeper.params or {}).items()]


def grid(preset: str) -> list[list[str]]:
    """The cells of a preset as overrides, by Hydra's own grammar and sweeper; one without any if it is no grid."""
    parsed = OverridesParser.create().parse_overrides(params_of(preset))
    return list(itertools.chain.from_iterable(BasicSweeper.split_arguments(parsed, max_batch_size=None)))


@pytest.mark.parametrize("group", CONTRACT)
def test_every_name_of_the_contract_exists(group: str) -> None:
    assert set(CONTRACT[group].split()) <= {file.stem for file in (CONF / group).glob("*.yaml")}


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: " ".join(cell.values()))
def test_every_choice_composes_and_converts(cell: dict[str, str]) -> None:
    needed = ["model.path=owner/called"] if cell.get("model") == "custom" else []
    spec = compose_cell([*(f"{group}={name}" for group, name in cell.items()), *needed])
    came_to = {("quantization", "auto"): "none", ("model", "custom"): "called"}
    for group, name in cell.items():
        assert getattr(spec.choices, group, name) == came_to.get((group, name), name)
    assert yaml.safe_load(yaml.safe_dump(to_plain(spec.config))) == to_plain(spec.config)


@pytest.mark.slow
@pytest.mark.parametrize("preset", presets())
def test_every_cell_of_every_preset_composes_and_converts(preset: str) -> None:
    cells = compose_grid([f"experiment={preset}", *params_of(preset)])[0]
    assert len(cells) == len(grid(preset))
    for cell in cells:
        assert cell.spec is not None
        assert cell.spec.choices.name.count("-") == 3


def test_ultra_large_is_the_grid_of_the_issue() -> None:
    cells = [compose_cell(["experiment=ultra_large", *cell]) for cell in grid("ultra_large")]
    names = {cell.choices.name for cell in cells}
    models, datasets = ("llama70b", "qwen72b", "mistral_large"), ("trivia_qa", "squad")
    assert names == {f"{model}-nf4-{dataset}-gnll" for model in models for dataset in datasets}
    for config in (cell.config for cell in cells):
        assert (config.dataset.num_samples, config.prompt.num_few_shot) == (400, 5)
        assert config.prompt.brief_always
        assert config.prompt.use_context
        assert (config.decoding.do_sample, config.decoding.num_generations) == (False, 1)


def test_each_seed_follows_the_base_seed_until_it_is_given() -> None:
    config = compose_cell(["seed=3", "decoding=sample", "prompt.seed=7"]).config
    assert (config.dataset.seed, config.prompt.seed, config.decoding.seed) == (3, 7, 3)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model=llama80b", "model=llama80b is not known; did you mean 'llama8b'? Allowed: command_a, "),
        ("dataset=squadd", "dataset=squadd is not known; did you mean 'squad'? Allowed: arc, "),
        ("modle=tiny", "no key modle; did you mean 'model'? Allowed: action, "),
        ("model.dtpye=float32", "no key model.dtpye; did you mean 'dtype'? Allowed: path, "),
        ("model.resources.gpu=1", "no key model.resources.gpu; did you mean 'gpus'? Allowed: gpus, cpus, "),
        ("dataset.num_sample=1", "no key dataset.num_sample; did you mean 'num_samples'? Allowed: path, "),
        ("+modle=tiny", "no key modle; did you mean 'model'? Allowed: action, "),
        ("+model.dtpye=float32", "no key model.dtpye; did you mean 'dtype'? Allowed: path, "),
        ("action=rnu", "action=rnu is not allowed; did you mean 'run'? Allowed: run, plan, "),
        ("model.dtype=float31", "model.dtype=float31 is not allowed; did you mean 'float32'? Allowed: "),
        ("decoding.max_new_tokens=many", "decoding.max_new_tokens=many is not allowed"),
        ("dataset.num_samples=0", "dataset.num_samples=0 asks for no example"),
        ("prompt.num_few_shot=-1", "prompt.num_few_shot=-1 is negative"),
        ("prompt.stop=['']", "prompt.stop holds an empty string"),
        ("decoding.max_new_tokens=0", "decoding.max_new_tokens=0 leaves no room"),
        ("decoding.num_generations=2", "use decoding=sample"),
        ("decoding.temperature=0", "decoding.temperature=0.0 is not positive"),
        ("decoding.batch_size=0", "decoding.batch_size=0 is neither 'auto' nor a number"),
        ("dataset.path=mine.jsonl", "your own file is dataset=jsonl"),
        ("model=custom", "model.path must be given"),
        ("model={", "is not an override"),
        ("model=null", "a group is chosen by its name"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_the_closest_match(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compose_cell([override])
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="$", exclude_categories=["Cs", "Cc"]),
        min_size=1,
        max_size=60,
    ).filter(lambda path: not path.startswith("~")),  # which means somebody's home folder
    st.sampled_from(Dtype),
    st.integers(1, 10**6),
    st.booleans(),
    st.floats(1e-3, 100),
    st.lists(st.sampled_from(["\n", "Question:", "it's", 'a "quote"', "a, b", "\\", "{x: [y]}"]), max_size=3),
)
def test_overrides_come_back_as_they_were_typed(
    path: str, dtype: Dtype, samples: int, context: bool, temperature: float, stop: list[str]
) -> None:
    spec = compose_cell(
        [
            f"model.path={quoted(path)}",
            f"model.dtype={dtype.name}",
            f"dataset.num_samples={samples}",
            f"prompt.use_context={str(context).lower()}",
            f"decoding.temperature={temperature!r}",
            f"prompt.stop=[{','.join(map(quoted, stop))}]",
        ]
    )
    config = spec.config
    assert (config.model.path, config.model.dtype, config.dataset.num_samples) == (path, dtype, samples)
    assert (config.prompt.use_context, config.decoding.temperature) == (context, temperature)
    assert config.prompt.stop == stop


def test_a_typed_new_line_is_one() -> None:
    prompt = compose_cell([r'prompt.stop=["\n","\\"]', r'prompt.instruction="Be brief.\n"']).config.prompt
    assert (prompt.stop, prompt.instruction) == (["\n", "\\"], "Be brief.\n")


def quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("--cfg", "job"), ("--help",), ("action=plan", "model=llama70b", "device_map=2xh100")],
    ids=["composing", "help", "plan"],
)
def test_composing_help_and_plan_import_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        f"import atexit, sys; atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))\n"
        "from probegrid.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(tmp_path.iterdir())


def classes_with_fields() -> list[ast.ClassDef]:
    tree = ast.parse(inspect.getsource(schema))
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("owner", classes_with_fields(), ids=lambda owner: owner.name)
def test_every_field_of_the_schema_is_described(owner: ast.ClassDef) -> None:
    assert ast.get_docstring(owner)
    described = {
        field.target.id
        for field, text in itertools.pairwise(owner.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    assert described == {field.target.id for field in owner.body if isinstance(field, ast.AnnAssign)}


def test_plain_values_hold_no_python_objects() -> None:
    def leaves(value: object) -> Iterator[object]:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        if children is None:
            yield value
        else:
            yield from itertools.chain.from_iterable(map(leaves, children))

    config = compose_cell([]).config
    assert isinstance(config, Config)
    assert not [leaf for leaf in leaves(to_plain(config)) if isinstance(leaf, Enum)]


def test_test_sets_are_typed_configs_with_the_cells_seed() -> None:
    words = ["probe=logistic", "dataset=facts_statements", "seed=4"]
    spec = compose_cell([*words, "probe.test_on=[statements:d/neg_cities.csv,facts_statements,other.csv]"])
    assert list(spec.test_on) == ["neg_cities", "facts_statements", "other"]
    assert [type(one).__name__ for one in spec.test_on.values()] == [
        "StatementsConfig",
        "FactsStatementsConfig",
        "JsonlConfig",
    ]
    assert {one.seed for one in spec.test_on.values()} == {4}
    assert [one.path for one in spec.test_on.values()] == ["d/neg_cities.csv", None, "other.csv"]


def test_test_sets_may_be_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(
        "defaults:\n  - /schema/dataset/statements@_here_\n  - _self_\npath: a.csv\nnum_samples: 7\nseed: ${seed}\n"
    )
    words = ["probe=mass_mean", "dataset=facts_statements", "seed=9", "probe.test_on=[mine,'mine:b/c é.csv']"]
    spec = compose_cell(words, config_dir=tmp_path)
    assert list(spec.test_on) == ["mine", "c_é"]
    assert [(one.path, one.num_samples, one.seed) for one in spec.test_on.values()] == [
        ("a.csv", 7, 9),
        ("b/c é.csv", 7, 9),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["probe.test_on=[statemnts]"],
            "test_on=statemnts is not known; did you mean 'statements'? Allowed: common_claim",
        ),
        (["probe.test_on=[facts]"], "probe.test_on=facts holds questions; name datasets of statements"),
        (["probe.test_on=[squad:x.json]"], "probe.test_on=squad:x.json holds questions"),
        (["probe.test_on=[statements:a/x.csv,statements:b/x.csv]"], "test_on names two datasets 'x'"),
        (["probe.test_on=[statements:]"], "names no file after its colon"),
        (
            ["probe=text_baseline", "probe.test_on=[facts_statements]"],
            "tests activation probes (logistic, mass_mean)",
        ),
        (["probe=gnll", "probe.test_on=[facts_statements]"], "no key probe.test_on; probe=ccs or control or"),
    ],
)
def test_a_test_set_that_cannot_be_is_refused_before_anything_is_read(
    words: list[str],
    sentence: str,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The cell's own dataset is not there either, and nobody has looked."""
    probe = () if words[0].startswith("probe=") else ("probe=logistic",)
    typed = ("tracking=none", *probe, "dataset=statements", "dataset.path=nowhere.csv", *words)
    monkeypatch.setattr(sys, "argv", ["probegrid", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not list(workdir.iterdir())


@pytest.mark.slow
def test_only_the_door_knows_hydra() -> None:
    """A worker and a cell run without it: what they need has travelled as values."""
    rooms = "probegrid.cell.run, probegrid.sweep.worker, probegrid.sweep.pack_job"
    code = f"import {rooms}, sys; print('hydra' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
