"""Reference pages from docstrings: every key, choice, metric and judge as Markdown, while the site is built.

A page holds lines such as ``<!-- reference: keys -->``, each of which is replaced by what the package says of itself.
Knows how fields, enums, metrics and judges are documented; nothing of their meaning.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from omegaconf import MISSING as REQUIRED

from probegrid import data, probes
from probegrid.data.labelled import StatementColumns
from probegrid.data.own_questions import QuestionColumns
from probegrid.door.help import defaults_in, groups_in, own_folder
from probegrid.door.keys import GROUPS, SPELLED
from probegrid.door.loader import ROOT
from probegrid.evaluation.metrics import METRICS, metric_title
from probegrid.judges import all_judges
from probegrid.plugins import config_classes
from probegrid.probes.base import ActivationProbe, Probe, TrainedProbe
from probegrid.schema import (
    Config,
    DatasetConfig,
    ProbeConfig,
    QuestionDatasetConfig,
)
from probegrid.schema.ranges import ANY_NUMBER, Range, declared
from probegrid.sweep.options import LauncherOptions, LocalOptions, SlurmOptions

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_PLACE = re.compile(r"^<!-- reference: (\w+) -->$", re.MULTILINE)
_SHARED = (DatasetConfig, QuestionDatasetConfig, QuestionColumns, StatementColumns)
"""Classes whose fields many datasets have, each with a section of its own."""
_NESTED = ("thinking", "architecture", "resources", "weights", "blocks")


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx replace the places of every page."""
    app.connect("source-read", lambda _app, _name, source: source.__setitem__(0, filled(source[0])))
    app.connect("env-get-outdated", _made_anew)
    return {"parallel_read_safe": True}


def _made_anew(app: Sphinx, _env: object, _added: object, _changed: object, _removed: object) -> list[str]:
    """Pages with places, which Sphinx would take for unchanged where a docstring has changed."""
    return [
        file.stem
        for file in Path(app.srcdir).glob("*.md")
        if _PLACE.search(file.read_text(encoding="utf-8")) is not None
    ]


def filled(page: str) -> str:
    """A page with every place filled.

    Raises:
        KeyError: a place asks for what there is not.
    """
    made = {"keys": keys_page, "choices": choices_page, "metrics": metrics_page, "judges": judges_page}
    return _PLACE.sub(lambda found: made[found[1]](), page)


def keys_page() -> str:
    """Every key of the configuration, by group: default, what is allowed, meaning."""
    return "\n\n".join(
        f"## {title}\n\n{text}\n\n{_entries(owner, prefix, own)}"
        for title, text, owner, prefix, own in _sections()
    )


def _sections() -> Iterator[tuple[str, str, type[Any], str, bool]]:
    """Title, text, class, prefix of its keys, and whether only the fields of the class itself are listed."""
    yield "The root", _doc(Config), Config, "", False
    hints = get_type_hints(Config)
    for group in ("model", "quantization", "device_map"):
        yield f"`{group}`", _doc(hints[group]), hints[group], f"{group}.", False
    yield "`dataset`: all", _doc(DatasetConfig), DatasetConfig, "dataset.", True
    yield "`dataset`: questions", _doc(QuestionDatasetConfig), QuestionDatasetConfig, "dataset.", True
    yield "`dataset`: columns of your own questions", _doc(QuestionColumns), QuestionColumns, "dataset.", True
    yield (
        "`dataset`: columns of your own statements",
        _doc(StatementColumns),
        StatementColumns,
        "dataset.",
        True,
    )
    choices = groups_in([own_folder()])["dataset"]
    for name, owner in config_classes("datasets", data, DatasetConfig):
        if _own_fields(owner):
            title = f"`dataset={name}`" if name in choices else f"`dataset`: {name} sets"
            yield title, _doc(owner), owner, "dataset.", True
    for group in ("prompt", "decoding"):
        yield f"`{group}`", _doc(hints[group]), hints[group], f"{group}.", False
    yield "`probe`: all", _doc(ProbeConfig), ProbeConfig, "probe.", True
    yield "`probe`: what learns", _doc(TrainedProbe), TrainedProbe, "probe.", True
    yield "`probe`: what learns from activations", _doc(ActivationProbe), ActivationProbe, "probe.", True
    for name, probe in config_classes("probes", probes, Probe):
        if _own_fields(probe):
            yield f"`probe={name}`", _doc(probe), probe, "probe.", True
    for group in ("tracking", "report", "status"):
        yield f"`{group}`", _doc(hints[group]), hints[group], f"{group}.", False
    for title, launcher in (
        ("`hydra.launcher`: all", LauncherOptions),
        ("`hydra/launcher=local`", LocalOptions),
        ("`hydra/launcher=slurm`", SlurmOptions),
    ):
        yield title, _doc(launcher), launcher, "hydra.launcher.", True


def _entries(owner: type[Any], prefix: str, own: bool) -> str:
    wanted = _own_fields(owner) if own else [part.name for part in fields(owner)]
    return "\n\n".join(_entry(owner, part, prefix) for part in fields(owner) if part.name in wanted)


def _own_fields(owner: type[Any]) -> list[str]:
    """Names of the fields that a class declares itself."""
    real = {part.name for part in fields(owner)}
    return [name for name in inspect.get_annotations(owner) if name in real]


def _entry(owner: type[Any], part: Field[Any], prefix: str) -> str:
    hint = get_type_hints(owner)[part.name]
    key = f"{prefix}{SPELLED.get(part.name, part.name)}"
    entry = f"`{key}`\n: {_field_doc(owner, part.name)}\\\n  [{_facts(owner, part, hint)}]{{.facts}}"
    inner = next((one for one in (hint, *get_args(hint)) if is_dataclass(one) and part.name in _NESTED), None)
    if inner is None or not isinstance(inner, type):
        return entry
    return "\n\n".join([entry, *(_entry(inner, each, f"{key}.") for each in fields(inner))])


def _facts(owner: type[Any], part: Field[Any], hint: Any) -> str:
    """Default, and what is allowed, of one field."""
    is_group = part.name in GROUPS and part.default == REQUIRED
    found = [f"default {_default(part)}"] if is_group or not is_dataclass(hint) else []
    found += ["keys of its own"] if is_dataclass(hint) else []
    members = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Enum)]
    allowed = declared(owner, part.name)
    if members:
        found.append("one of " + ", ".join(f"`{each.name}`" for each in members[0]))
    elif isinstance(allowed, Range) and allowed != ANY_NUMBER:
        found.append(allowed.allowed())
    return "; ".join(found)


def _default(part: Field[Any]) -> str:
    if part.name in GROUPS and part.default == REQUIRED:
        return f"`{defaults_in(own_folder() / f'{ROOT}.yaml')[part.name]}`"
    value = part.default if part.default is not MISSING else None
    if part.default_factory is not MISSING:
        value = part.default_factory()
    if is_dataclass(value) or value == REQUIRED:
        return "by the choice"
    if value is None:
        return "`null`"
    if isinstance(value, Enum):
        return f"`{value.name}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return (
        f"`{value!r}`"
        if isinstance(value, str | list | dict)
        else f"`{value:g}`"
        if isinstance(value, float)
        else f"`{value}`"
    )


def choices_page() -> str:
    """Every choice of every group, by the first comment of its file, as ``--help`` has it."""
    parts = []
    for group, choices in groups_in([own_folder()]).items():
        rows = [f"| `{name}` | {line.replace('|', chr(92) + '|')} |" for name, line in choices.items()]
        parts.append("\n".join([f"## `{group}=`", "", "| choice | what |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def metrics_page() -> str:
    """Every metric, as `METRICS` describes it."""
    rows = []
    for name, info in METRICS.items():
        titles = dict.fromkeys(metric_title(name, of_probe=is_probe) for is_probe in (False, True))
        told = [title for title in titles if title != name.replace("_", " ")]
        shown = f"`{name}<name>`" if name.endswith("_") else f"`{name}`"
        better = {True: "higher is better", False: "lower is better", None: ""}[info.higher_is_better]
        unit = "" if info.unit == "1" else info.unit
        rows.append(
            f"| {', '.join([shown, *told])} | {info.description} | {'; '.join(filter(None, (unit, better)))} |"
        )
    return "\n".join(["| metric, and its name in tables | what | unit, direction |", "|---|---|---|", *rows])


def judges_page() -> str:
    """Every judge of an answer: what it is, which readings it takes, which way its formula points."""
    rows = []
    for name, one in all_judges().items():
        reads = ", ".join(sorted(read.name for read in one.reads)) or one.asks or ""
        rows.append(f"| `{name}` | {one.description} | {reads} | {one.rises} |")
    return "\n".join(["| judge | what | reads | its formula rises with |", "|---|---|---|---|", *rows])


def _doc(owner: type[Any]) -> str:
    return inspect.getdoc(owner) or ""


def _field_doc(owner: type[Any], name: str) -> str:
    """The docstring of a field, of the nearest class that documents it."""
    for each in owner.__mro__:
        if text := _field_docs(each).get(name):
            return text
    raise KeyError(f"{owner.__name__}.{name} has no docstring")


@cache
def _field_docs(owner: type[Any]) -> dict[str, str]:
    """By field of the class itself, the text that stands below it."""
    if owner is object or not is_dataclass(owner):
        return {}
    (node,) = ast.parse(inspect.cleandoc(inspect.getsource(owner))).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            assert isinstance(below, ast.Expr)
            assert isinstance(below.value, ast.Constant)
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found
