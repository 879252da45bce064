"""``--help`` lists what can be chosen, anywhere, at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probegrid.door.help import help_text
from probegrid.schema import Action

CONF = Path(__file__).parents[2] / "conf"
GROUPS = (
    "model",
    "quantization",
    "device_map",
    "dataset",
    "probe",
    "prompt",
    "decoding",
    "tracking",
    "experiment",
)


@pytest.fixture
def shown(probegrid: Any) -> dict[str, list[str]]:
    """The lines of each part, by its title."""
    ended = probegrid("--help")
    assert (ended.status, ended.err) == (0, "")
    return {part.splitlines()[0]: part.splitlines()[1:] for part in ended.out.strip().split("\n\n")}


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_has_its_line(shown: dict[str, list[str]], group: str) -> None:
    lines = {line[2:].split()[0]: line[2:].partition(" ")[2].strip() for line in shown[f"{group}="]}
    assert lines.keys() == {file.stem for file in (CONF / group).glob("*.yaml")}
    for name, line in lines.items():
        comments = [one for one in (CONF / group / f"{name}.yaml").read_text().splitlines() if one[:1] == "#"]
        assert line == next(one.lstrip("# ") for one in comments if "@package" not in one)


def test_every_action_has_its_line(shown: dict[str, list[str]]) -> None:
    lines = shown["Actions (action=NAME)"]
    assert [line[2:].split()[0] for line in lines] == [action.name for action in Action]
    assert all(len(line[2:].split()) > 4 for line in lines)


def test_launchers_are_listed_and_internal_groups_are_not(shown: dict[str, list[str]]) -> None:
    names = [line[2:].split()[0] for line in shown["Launchers of grids (hydra/launcher=NAME)"]]
    assert names == ["local", "slurm", "slurm_2xh100", "slurm_4x11gb"]
    assert not [title for title in shown if "schema" in title or title.startswith("hydra")]


def test_defaults_are_marked(shown: dict[str, list[str]]) -> None:
    marked = [line[2:].split()[0] for lines in shown.values() for line in lines if line.startswith("* ")]
    assert marked == ["run", "tiny", "auto", "auto", "facts", "brief", "greedy", "gnll", "mlflow", "local"]


@pytest.mark.slow
def test_every_example_composes(
    shown: dict[str, list[str]], probegrid: Any, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a plan goes; the last prints the config."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it is asked five times
    (workdir / "my.jsonl").write_text('{"question": "Where?", "answers": ["here"]}\n' * 8)
    for line in shown["Examples"]:
        command = line.strip().split("  ")[0].split()[1:]
        ended = probegrid(*command, *(() if "--cfg" in command else ("action=plan", "device_map.gpus=2")))
        assert ended.status in (0, 2), ended.err
        assert "no key" not in ended.err
        assert "is not known" not in ended.err


def test_the_users_own_choices_are_listed_and_take_the_place_of_ours(own: Any, workdir: Path) -> None:
    own("model", "mine", "# My checkpoint.\npath: /x\n")
    own("model", "tiny", "# My tiny.\npath: /y\n")
    own("model", "bare", "path: /x\n")
    own("hydra/launcher", "cluster", "# My cluster.\ndefaults: [slurm, _self_]\n")
    own("experiment", "study", "# @package _global_\n# My study.\nseed: 1\n")
    text = help_text("groups")
    for line in (
        "mine             My checkpoint.",
        "* tiny             My tiny.",
        "cluster       My cluster.",
        "study         My study.",
    ):
        assert line in text
    assert "\n  bare\n" in text
    assert "llama8b" in text


def test_a_folder_that_is_not_there(probegrid: Any) -> None:
    ended = probegrid("--help", "--config-dir", "nowhere")
    assert ended.status == 2
    assert "--config-dir nowhere is no folder" in ended.sentence


def test_help_composes_nothing_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, hydra._internal.config_loader_impl as loader\n"
        "def fail(*_, **__): raise AssertionError('composed')\n"
        "loader.ConfigLoaderImpl.load_configuration = fail\n"
        "sys.argv = ['probegrid', '--help']\n"
        "from probegrid.cli import main; main()\n"
        "heavy = ('numpy', 'torch', 'transformers', 'mlflow', 'sklearn', 'pandas', 'pyarrow', 'rich')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(tmp_path.iterdir())
