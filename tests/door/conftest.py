"""A folder with small files to name, and ``probegrid`` in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from probegrid.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """All of stderr, which must be one sentence for the user; nothing on stdout."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("probegrid: ")
        return line.removeprefix("probegrid: ")


Probegrid = Callable[..., Ended]


@pytest.fixture
def probegrid(workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Probegrid:
    """Run the command's own ``main`` in an empty folder."""

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["probegrid", *words])
        capfd.readouterr()
        try:
            main()
        except SystemExit as end:
            assert isinstance(end.code, int)
            return Ended(end.code, *capfd.readouterr())
        return Ended(0, *capfd.readouterr())

    return run


@pytest.fixture
def own(workdir: Path) -> Callable[[str, str, Mapping[str, object] | str], Path]:
    """Write a choice of a group below ``groups``, which is given as ``--config-dir``: its values, or its text."""

    def write(group: str, name: str, content: Mapping[str, object] | str) -> Path:
        file = workdir / "groups" / group / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False)
        )
        return file

    return write
