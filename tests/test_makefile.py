"""``make install`` takes whichever Python is there and new enough; stand-ins say which one was taken."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
STAND_IN = """#!/bin/sh
case "$1 $2" in
  "-c "*) exit {status} ;;
  "-m venv") mkdir -p "$3/bin"; printf '#!/bin/sh\\n' > "$3/bin/python"; chmod +x "$3/bin/python"; echo "took {name}" ;;
esac
"""
NEW_ENOUGH, TOO_OLD, NOT_THERE = 0, 1, 127

Install = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Run ``make install`` where only these Pythons are, by name: how each answers when it is asked for its version."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "mkdir", "chmod", "touch"):
        (programs / name).symlink_to(str(shutil.which(name)))

    def run(pythons: Mapping[str, int], *arguments: str) -> subprocess.CompletedProcess[str]:
        for name, status in pythons.items():
            (programs / name).write_text(STAND_IN.format(name=name, status=status))
            (programs / name).chmod(0o755)
        return subprocess.run(
            ["make", "install", *arguments],
            cwd=tmp_path,
            env={"PATH": str(programs)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.11": NEW_ENOUGH}, "python3.11"),
        ({"python3.13": NEW_ENOUGH, "python3.12": NEW_ENOUGH, "python3": TOO_OLD}, "python3.13"),
        ({"python3.13": NOT_THERE, "python3.12": NEW_ENOUGH}, "python3.12"),
        ({"python3": NEW_ENOUGH}, "python3"),
        ({"python3.11": TOO_OLD, "python3": TOO_OLD, "python": NEW_ENOUGH}, "python"),
    ],
)
def test_the_first_that_can_make_an_environment_is_taken(
    install: Install, pythons: dict[str, int], taken: str
) -> None:
    done = install(pythons)
    assert done.returncode == 0, done.stderr
    assert f"took {taken}\n" in done.stdout


def test_the_one_that_is_named_is_taken(install: Install) -> None:
    pythons = {"python3.13": NEW_ENOUGH, "python3.14": NEW_ENOUGH}
    assert "took python3.14\n" in install(pythons, "PYTHON=python3.14").stdout


@pytest.mark.parametrize("arguments", [(), ("PYTHON=python3.10",)])
def test_where_none_will_do_one_sentence_says_so(
    install: Install, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = install({"python3": TOO_OLD, "python3.10": TOO_OLD}, *arguments)
    assert done.returncode != 0
    said = done.stderr.splitlines()[0]
    assert ("python3.10" if arguments else "python3.13 python3.12 python3.11 python3 python") in said
    assert "from 3.11 up" in said
    assert "make install PYTHON=" in said
    assert not (tmp_path / ".venv").exists()


def test_make_alone_lists_the_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("install", "run", "test", "test-fast", "check", "lock"):
        assert f"make {target} " in listed


def test_every_package_takes_the_first_python_that_we_take() -> None:
    """Debian's 3.11 is 3.11.2, and a package that wants 3.11.5 leaves nothing to install."""
    wanted = {each.name: SpecifierSet(each.metadata.get("Requires-Python", "")) for each in distributions()}
    assert len(wanted) > 100
    assert not {name: str(python) for name, python in wanted.items() if not python.contains("3.11.0")}
