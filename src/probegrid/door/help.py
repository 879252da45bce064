"""What ``probegrid --help`` says: actions, groups with a line a choice, launchers, flags, examples.

Reads the first lines of the YAML files and composes nothing, for it should answer at once.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from probegrid.door.keys import GROUPS
from probegrid.door.loader import CONFIG_MODULE, ROOT, users_folder
from probegrid.schema import Action

_LAUNCHERS = "hydra/launcher"
_INTERNAL = ("schema", "hydra")
"""Groups of the config store and of Hydra's own that nobody chooses from."""
_FLAGS = {
    "-m, --multirun": "Run a grid: every combination of the values that commas separate.",
    "-cd, --config-dir FOLDER": "Groups of your own: YAML files in FOLDER/<group>/, before ours of the same name.",
    "--cfg job": "Print every key with its value, and run nothing.",
    "-sc, --shell-completion install=SHELL": "Complete words in bash, zsh or fish: "
    'eval "$(probegrid -sc install=bash)".',
    "--version": "Print the version.",
    "-h, --help": "Print this.",
    "--hydra-help": "Print what Hydra itself takes.",
}
_EXAMPLES = """\
  probegrid                                                     the embedded default, on the CPU, no network
  probegrid model=qwen72b dataset=squad                         one cell; weights and data come from the hub
  probegrid model=Qwen/Qwen3-8B dataset=my.jsonl                any checkpoint by its id or folder, any file
  probegrid action=plan model=mistral_large quantization=nf4 device_map=4x11gb
  probegrid -m model=llama8b,qwen7b dataset=trivia_qa,squad     a grid; hydra/launcher=slurm sends it to a cluster
  probegrid -m probe=gnll,logistic probe.layers=all             a key goes to the choices that have it
  probegrid experiment=ultra_large                              a preset
  probegrid --cfg job                                           every key with its value"""


def help_text(config_dir: str | None = None) -> str:
    """The whole text.

    Args:
        config_dir: folder of the user's own groups, listed too.

    Raises:
        ConfigError: there is no such folder.
    """
    folders = [own_folder(), *([users_folder(config_dir)] if config_dir is not None else [])]
    groups = groups_in(folders)
    launchers = groups.pop(_LAUNCHERS, {})
    actions = {action.name: action.value for action in Action}
    defaults = defaults_in(folders[0] / f"{ROOT}.yaml")
    parts = [
        "probegrid runs any cell, or the whole grid, of model x quantization x device map x dataset x probe.",
        "Usage: probegrid [flags] [group=choice ...] [key=value ...]",
        _section("Actions (action=NAME)", actions, "run"),
        *(_section(f"{group}=", groups[group], defaults.get(group)) for group in _in_order(groups, defaults)),
        _section(f"Launchers of grids ({_LAUNCHERS}=NAME)", launchers, "local"),
        _section("Flags", _FLAGS),
        f"Examples\n{_EXAMPLES}",
        "* is what is taken where nothing is typed. Exit status: 0 done, 2 your input, 1 anything else.",
    ]
    return "\n\n".join(parts)


def own_folder() -> Path:
    """Where our own groups lie."""
    spec = importlib.util.find_spec(CONFIG_MODULE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def groups_in(folders: list[Path]) -> dict[str, dict[str, str]]:
    """A line for each choice of each group: of what is registered, of our files, and before those of the user's."""
    found: dict[str, dict[str, str]] = {}
    for group, name, line in _registered():
        found.setdefault(group, {})[name] = line
    for folder in folders:
        for file in sorted(folder.glob("*/**/*.yaml")):
            group = file.parent.relative_to(folder).as_posix()
            if group == _LAUNCHERS or group.partition("/")[0] not in _INTERNAL:
                found.setdefault(group, {})[file.stem] = _first_comment(file)
    return {group: dict(sorted(choices.items())) for group, choices in found.items()}


def _registered() -> Iterator[tuple[str, str, str]]:
    """Choices without a file: our launchers, and what plugins of probegrid bring."""
    Plugins.instance()  # each puts its own into the config store
    yield from _nodes(ConfigStore.instance().repo, "")


def _nodes(group: dict[str, object], name: str) -> Iterator[tuple[str, str, str]]:
    for key, node in group.items():
        if isinstance(node, dict):
            yield from _nodes(node, f"{name}/{key}".lstrip("/"))
        elif isinstance(node, ConfigNode) and _is_listed(name, node):
            schema = ConfigStore.instance().repo.get("schema", {}).get(name, {}).get(key, node)
            owner = OmegaConf.get_type(
                schema.node
            )  # a choice from outside is but defaults: its schema has the class
            yield name, key.removesuffix(".yaml"), (inspect.getdoc(owner) or "").partition("\n")[0]


def _is_listed(group: str, node: ConfigNode) -> bool:
    if group == _LAUNCHERS:
        return node.provider == "probegrid"
    return bool(group) and group.partition("/")[0] not in _INTERNAL


def _first_comment(file: Path) -> str:
    """The first line of comment that is none of Hydra's (``# @package``); empty where there is none."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            text = line.strip()
            if text and not text.startswith("#"):
                break
            if (comment := text.lstrip("# ")) and not comment.startswith("@"):
                return comment
    return ""


def defaults_in(root: Path) -> dict[str, str]:
    """What is chosen where nothing is typed, by group."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    listed = yaml.load(root.read_text(encoding="utf-8"), Loader=loader)["defaults"]  # noqa: S506  # a safe loader
    return {group: choice for one in listed if isinstance(one, dict) for group, choice in one.items()}


def _in_order(groups: dict[str, dict[str, str]], defaults: dict[str, str]) -> list[str]:
    """The groups of a cell in their usual order, others of the root config, a user's own after them."""
    usual = [group for group in GROUPS if group in defaults]
    return [
        *(group for group in dict.fromkeys([*usual, *defaults]) if group in groups),
        *(group for group in groups if group not in defaults),
    ]


def _section(title: str, lines: dict[str, str], default: str | None = None) -> str:
    width = max(map(len, lines), default=0)
    rows = [
        f"{'*' if name == default else ' '} {name:{width}}  {line}".rstrip() for name, line in lines.items()
    ]
    return "\n".join([title, *rows])
