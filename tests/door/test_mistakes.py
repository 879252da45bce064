"""Whatever is typed wrongly is one sentence and status 2, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probegrid.compose import compose_cell
from probegrid.errors import ConfigError

LIST = "gives model several values; add -m to run a grid of them"
NO_OVERRIDE = "is not an override; write group=name or key=value"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("-m seed=", "seed= is not allowed"),
        ("seed=", "seed= is not allowed"),
        ("seed=abc", "seed=abc is not allowed: Value 'abc'"),
        ("store_dir=", "store_dir= names no folder; give one, or leave it out: store."),
        ("-m results_dir=''", "results_dir= names no folder; give one, or leave it out: results."),
        ("seed=é", "is not an override"),
        ("-m seed=,", NO_OVERRIDE),
        ("-m seed=1,", NO_OVERRIDE),
        ("-m seed=range(0)", "the grid has no cell"),
        ("-m seed=range(", NO_OVERRIDE),
        ("-m seed=interval(0,1)", "lists no values; write seed=a,b"),
        ("-m model=glob(nope*)", "the grid has no cell"),
        ("model=", "model= is not known; Allowed: command_a, "),
        ("-m model=", "model= is not known; Allowed: command_a, "),
        ("-m model=tiny,", NO_OVERRIDE),
        ("model=tiny,llama8b", LIST),
        ("seed=range(3)", "gives seed several values; add -m"),
        ("model='tiny", NO_OVERRIDE),
        ('model="tiny', NO_OVERRIDE),
        ("model.path='/a", NO_OVERRIDE),
        ("model={", NO_OVERRIDE),
        ("model=[]", "model is chosen by one name"),
        ("model=[tiny,llama8b]", "model is chosen by one name"),
        ("model=???", "model is chosen by one name"),
        ("model=null", "a group is chosen by its name"),
        ("model={a: 1}", "no key model.a; Allowed: path, "),
        ("dataset.path=[]", "dataset.path=[] is not allowed"),
        ("prompt.stop=[[a]]", "prompt.stop holds a list or a mapping"),
        ("prompt.stop=x", "prompt.stop=x is not allowed: prompt.stop takes a list, as in 'prompt.stop=[x]'."),
        (
            "prompt.stop.x=3",
            "prompt.stop.x=3: prompt.stop has no keys, it is a value; write prompt.stop=<value>.",
        ),
        ("-m seed=1,2 +model.path.x=1", "+model.path.x=1: model.path has no keys"),
        ("seed.a=1", "seed.a=1: seed has no keys"),
        ("probe=logistic probe.layers=[]", "probe.layers=[] is neither 'all' nor a list"),
        ("probe=logistic probe.C=[]", "probe.C=[] leaves nothing to try; give, for example, [0.01,1]"),
        ("-m probe=logistic probe.C=", "probe.C= is not allowed"),
        ("foo", NO_OVERRIDE),
        ("=x", NO_OVERRIDE),
        ("model..path=3", NO_OVERRIDE),
        ("~seed", "~seed removes a part that every cell has"),
        ("~model", "~model removes a part that every cell has"),
        ("+seed=3", "+seed=3 adds a part that every cell has"),
        ("+model=tiny", "+model=tiny adds a part that every cell has"),
        ("model=tiny model=tiny", "model=tiny is given twice; give it once."),
        ("hydra/launcher=slurm seed=1 hydra/launcher=slurm", "hydra/launcher=slurm is given twice"),
        ("model=tiny model=llama8b", "model is given twice (model=tiny and model=llama8b)"),
        ("-m model=tiny model=llama8b", "run both as a grid: -m model=tiny,llama8b"),
        ("hydra/launcher=slrum", "did you mean 'slurm'?"),
        ("hydra.launcher.partition=x", "hydra/launcher=slurm has it"),
        ("-m hydra/launcher=slurm hydra.launcher.partiton=x", "did you mean 'partition'?"),
        ("hydra.launcher.cell_per_job=2", "did you mean 'cells_per_job'?"),
        ("hydra.mode=FOO", "Allowed: RUN, MULTIRUN"),
        ("-m hydra.sweeper.params.seed=1", "this cannot be composed"),
        ("probe.layers=[1]", " or logistic or mahalanobis or mass_mean or "),
        ("probe.layrs=[1]", "did you mean 'layers'? probe=ccs or control"),
        ("probe.form=x", "no key probe.form; did you mean 'from'?"),
        ("store_dir=${nope}", "store_dir is not allowed: Interpolation key 'nope' not found"),
        ("model=~nobody-here", "is in no user's home folder; ./~nobody-here"),
        ("seed=${seed}", "Recursive interpolation"),
        ("action=plan,run", "gives action several values"),
        ("-m action=plan,run", "action differs between the cells"),
        ("report.probe=gnll,p_true", "give one, or where it filters a list: 'report.probe=[a,b]'."),
        ("-m action=report report.probe=gnll,p_true", "report.probe differs between the cells of one grid"),
        (
            "-m action=verify store_dir=a,b",
            "store_dir differs between the cells of one grid, and action=verify is",
        ),
        ("-m action=status results_dir=a,b", "results_dir differs between the cells of one grid"),
        ("--config-name smoke", "names no config; the preset is experiment=smoke; give a YAML file"),
        ("team=a", "the config has no key team"),
        ("model@model=tiny", "model@model=tiny: every cell has one model; choose it by model=<name>."),
        ("experiment@x=smoke", "every cell has one experiment"),
        ("dataset=${oc.env:DATA}", "${oc.env:DATA} cannot choose a group"),
        ("hydra.job.env_set.X=1", "no key hydra.job.env_set.X; add it with a plus, +hydra.job.env_set.X=1."),
        ("model.architecture.layers=3", "add model.architecture.hidden=<value>."),
        ("--config-dir nowhere", "--config-dir nowhere is no folder"),
        ("--config-name nope", "--config-name nope names no config; give a YAML file of --config-dir"),
    ],
)
def test_a_mistake_is_one_sentence(probegrid: Any, workdir: Path, words: str, sentence: str) -> None:
    ended = probegrid(*words.replace("a: 1", "a:1").split())
    assert ended.status == 2
    assert sentence in ended.sentence
    assert not list(workdir.iterdir())


def test_a_group_of_ones_own_is_added_with_a_plus_and_a_bare_root_lists_ours(
    probegrid: Any, own: Any
) -> None:
    folder = str(own("team", "a", "# @package _global_\nseed: 7\n").parents[1])
    own(".", "bare", {"defaults": ["schema", {"model": "tiny"}, "_self_"]})
    ended = probegrid("-cd", folder, "team=a")
    assert ended.status == 2
    assert "team=a: no cell has a group team by itself; add it with a plus, +team=a." in ended.sentence
    assert probegrid("-cd", folder, "+team=a", "--cfg", "job", "-p", "seed").out.strip() == "7"
    ended = probegrid("-cd", folder, "-cn", "bare", "tracking=none")
    assert (
        "the root config has no tracking among its defaults; list it there, `- tracking: <name>`"
        in ended.sentence
    )


GLOBAL = "# @package _global_\n"
NOT_GLOBAL = (
    "groups/experiment/mine.yaml is of the whole config: begin it with the line `# @package _global_`."
)


@pytest.mark.parametrize(
    ("preset", "sentence"),
    [
        ("seed: 3\n", NOT_GLOBAL),
        ("defaults:\n  - override /dataset: facts\n", NOT_GLOBAL),
        (
            GLOBAL + "defaults:\n  - override /datset: facts\n",
            "mine.yaml, line 3: no cell has a group datset; did you",
        ),
        (GLOBAL + "defaults:\n  - /dataset: facts_rare\n", "writes `- override /dataset: facts_rare`."),
        (GLOBAL + "dataset: facts_rare\n", "choose it in its defaults, `- override /GROUP: facts_rare`."),
    ],
)
def test_a_preset_that_is_not_laid_out_as_one_is_told_how(
    probegrid: Any, own: Any, preset: str, sentence: str
) -> None:
    """Values of a preset without its first line were of no cell, and nothing said so."""
    folder = own("experiment", "mine", preset).parents[1].name
    ended = probegrid("-cd", folder, "experiment=mine", "action=plan")
    assert ended.status == 2
    assert sentence in ended.sentence


def test_a_grid_of_ones_own_is_named_where_a_cell_is_asked_for(own: Any) -> None:
    folder = own("experiment", "mine", f"{GLOBAL}hydra:\n  mode: MULTIRUN\n").parents[1]
    with pytest.raises(ConfigError, match="experiment=mine is a grid, not a cell"):
        compose_cell(["experiment=mine"], folder, refuse_grids=True)


def test_a_file_in_place_of_a_folder_is_refused_before_anything_is_read(
    probegrid: Any, workdir: Path
) -> None:
    (workdir / "file").touch()
    for word, folder in (("results_dir", "file"), ("store_dir", "file/below")):
        ended = probegrid(f"{word}={folder}")
        assert ended.status == 2
        assert ended.sentence == f"{word}={folder}: file is a file; name a folder, which need not be there."


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(
        ["model", "model.path", "seed", "probe.C", "prompt.stop", "hydra.launcher", "dataset", "x", ""]
    ),
    st.text(st.sampled_from("a1.,:=[]{}()'\"\\ $~+#@/é-?"), max_size=8),
)
def test_whatever_is_typed_composes_or_is_refused(key: str, value: str) -> None:
    try:
        compose_cell([f"{key}={value}"])
    except ConfigError as error:
        assert str(error)
        assert "\n" not in str(error).replace(value, "")
