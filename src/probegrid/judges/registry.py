"""Every judge there is: its formula, what it needs, which way it points; ours, and those from outside.

Knows how judges are declared and found. One of your own is a function under ``@judge`` in a module that the entry point
group ``probegrid.judges`` or ``PROBEGRID_PLUGINS`` names.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from probegrid.errors import ConfigError
from probegrid.evaluation.checks import as_score
from probegrid.judges.evidence import Evidence, Read
from probegrid.plugins import VARIABLE, instances_from_outside

Formula = Callable[[Evidence], float]
_OURS = "probegrid."
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Rises(StrEnum):
    """What a formula grows with."""

    uncertainty = "uncertainty"
    confidence = "confidence"


@dataclass(frozen=True)
class Judge:
    """A score of an answer that is computed from readings."""

    formula: Formula
    reads: frozenset[Read]
    """What it needs."""
    rises: Rises
    """What the formula grows with; a score always grows with confidence."""
    asks: str | None = None
    """The prompt whose reply it needs, by its name."""

    @property
    def name(self) -> str:
        """Its column in ``other_scores.parquet``: the name of the function."""
        return self.formula.__name__

    @property
    def description(self) -> str:
        """The first sentence of the function's docstring."""
        text = inspect.getdoc(self.formula) or ""
        first = text.partition("\n\n")[0].replace("\n", " ")
        return re.split(r"(?<=[^.][^.])\. |\.$", first, maxsplit=1)[0]

    @property
    def source(self) -> str | None:
        """SHA-256 of the module of one from outside; None of our own."""
        module = self.formula.__module__
        if module.startswith(_OURS):
            return None
        return hashlib.sha256(inspect.getsource(sys.modules[module]).encode()).hexdigest()

    def __call__(self, evidence: Evidence) -> float:
        """The formula's own value, in whichever direction it grows.

        Raises:
            ConfigError: it is no number, or infinite.
        """
        return as_score(self.formula(evidence), f"the judge {self.name}", evidence.question)

    def score(self, evidence: Evidence) -> float:
        """The value turned so that larger means correct is more likely."""
        value = self(evidence)
        return value if self.rises is Rises.confidence else -value


def judge(
    *reads: Read, rises: Rises = Rises.uncertainty, asks: str | None = None
) -> Callable[[Formula], Judge]:
    """Declare a function of an `Evidence` to be a judge, known by its name and by the first sentence of its docstring.

    Args:
        reads: what it needs of the readings; it is not called where that was not read.
        rises: what its value grows with.
        asks: a prompt whose reply it needs besides, by its name.
    """

    def declare(formula: Formula) -> Judge:
        found = Judge(formula, frozenset(reads), rises, asks)
        if not _NAME.fullmatch(found.name) or not found.description:
            raise ConfigError(
                f"the judge {found.name} needs a name of lower-case letters, digits and underscores, and a docstring "
                "whose first sentence says what it is."
            )
        return found

    return declare


def all_judges() -> dict[str, Judge]:
    """Every judge by its name, ours first.

    Raises:
        ConfigError: two have one name, or a module from outside cannot be imported.
    """
    return dict(_all_judges(os.environ.get(VARIABLE, "")))


@cache
def _all_judges(_named: str) -> dict[str, Judge]:
    """The judges, looked for once as long as the same modules are named."""
    room = sys.modules[__name__.rpartition(".")[0]]
    modules = [
        importlib.import_module(f"{room.__name__}.{found.name}")
        for found in pkgutil.iter_modules(room.__path__)
    ]
    ours = [value for module in modules for value in vars(module).values() if isinstance(value, Judge)]
    found: dict[str, Judge] = {}
    for one in dict.fromkeys([*ours, *instances_from_outside("judges", Judge)]):
        if one.name in found:
            raise ConfigError(
                f"two judges are called {one.name}, of {found[one.name].formula.__module__} and "
                f"{one.formula.__module__}; give one of them another name."
            )
        found[one.name] = one
    return found
