"""The exception tree: everything probegrid raises on purpose.

::

    ProbegridError
    ├── UserError            the user's mistake: one sentence, exit status 2
    │   ├── ConfigError      a value or a combination of values that is not allowed
    │   │   └── UnknownArchitecture  nothing is known of a model's architecture, so that it cannot be planned
    │   ├── DataError        a dataset that cannot be read as asked
    │   ├── CheckpointError  a model folder or hub id that cannot be loaded as asked
    │   ├── PlanError        a cell that cannot work on the hardware given
    │   └── NotAtHand        what would have to be fetched where nothing may be; caught by whoever forbade it
    └── RunError             the world's fault: one sentence, exit status 1
        ├── StoreError       a damaged entry, a full disk
        └── TrackingError    MLflow cannot be reached or refuses

A message says what was given, what is allowed, and how to mend it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LONGEST_WORD = 1000


def printable(text: str) -> str:
    """The text on one line that moves no cursor: control characters by their escapes, very long words cut."""
    line = "".join(
        one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text
    )
    return re.sub(rf"(\S{{{_LONGEST_WORD}}})\S+", r"\1...", line)


class ProbegridError(Exception):
    """Root of the tree; never raised itself. What it says is one line, whatever it quotes."""

    exit_status = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class UserError(ProbegridError):
    """The input is wrong and the user can mend it."""

    exit_status = 2


class ConfigError(UserError):
    """A value, or a combination of values, that is not allowed."""


class UnknownArchitecture(ConfigError):
    """Nothing is known of a model's architecture, so that it cannot be planned."""


class DataError(UserError):
    """A dataset that is missing, empty, or not in a shape that can be read."""


class CheckpointError(UserError):
    """A checkpoint that is missing, incomplete, or not one."""


class PlanError(UserError):
    """A cell that cannot work on the hardware given; the message names what would."""


class NotAtHand(UserError):
    """A checkpoint or a dataset that would have to be fetched, where nothing may be."""


class RunError(ProbegridError):
    """Something outside the user's input went wrong."""


class StoreError(RunError):
    """A damaged entry of the store or of the results, or a disk that is full."""


class TrackingError(RunError):
    """MLflow cannot be reached or refuses what it is sent."""


def closest(name: str, allowed: Iterable[str]) -> str:
    """Phrase the allowed names for an error message, the closest match first.

    >>> closest("squadd", ["facts", "squad"])
    "did you mean 'squad'? Allowed: facts, squad"
    """
    names = list(allowed)
    match = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{match[0]}'? " if match else ""
    return f"{hint}Allowed: {', '.join(names)}"
