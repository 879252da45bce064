"""The house as it is drawn: few modules at the root, no circles, and every import contract of pyproject.toml kept."""

from __future__ import annotations

import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
MOST_AT_THE_ROOT = 9


def test_at_most_nine_modules_lie_at_the_root() -> None:
    modules = sorted(path.name for path in (ROOT / "src" / "probegrid").glob("*.py"))
    assert "cli.py" in modules
    assert len(modules) <= MOST_AT_THE_ROOT, modules


def test_no_import_goes_in_a_circle() -> None:
    """A module at a time, packages' own modules among them; imports for type hints count."""
    graph = grimp.build_graph("probegrid", "hydra_plugins", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert imports["probegrid.cli"]
    order = list(TopologicalSorter(imports).static_order())  # a circle raises CycleError, which names it
    assert order.index("probegrid.errors") < order.index("probegrid.cli")


def test_the_contracts_are_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # import-linter puts the working folder in front
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out
