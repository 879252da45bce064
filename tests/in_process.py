"""The command's own ``main`` in this process, for tests that are not about a program's start."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from probegrid.cli import main


def run_main(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Do as ``probegrid WORDS`` does: its exit status, and what it writes to stdout and to stderr."""
    monkeypatch.setattr(sys, "argv", ["probegrid", *words])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it
    capfd.readouterr()
    status = 0
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    said = capfd.readouterr()
    return status, said.out, said.err
