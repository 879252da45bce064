"""The wheel holds everything that is needed, and works where nothing of the repository is."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

from sweep_helpers import Grid, own_grid

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "probegrid"


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    wanted = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (*PACKAGE.rglob("*"), *(PACKAGE / "conf").rglob("*"))
        if path.is_file() and not {"__pycache__", ".ruff_cache"} & set(path.parts)
    }
    assert {"probegrid/conf/config.yaml", "probegrid/conf/model/tiny.yaml", "probegrid/py.typed"} <= wanted
    assert not wanted - names(wheel)
    assert "hydra_plugins/probegrid_launcher/__init__.py" in names(wheel)


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"probegrid", "hydra_plugins"}
    assert not [name for name in names(wheel) if "cache" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names(wheel))


def test_an_installed_probegrid_is_the_wheels(
    installed: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    where = "import hydra_plugins.probegrid_launcher as plugin, probegrid; print(plugin.__file__, probegrid.__file__)"
    assert str(ROOT) not in installed("python", "-c", where).stdout


def test_an_installed_probegrid_takes_the_users_own_groups(
    installed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    own = (PACKAGE / "conf" / "model" / "llama8b.yaml").read_text().replace("layers: 32", "layers: 2")
    (tmp_path / "model" / "mine.yaml").write_text(own)
    shown = installed("probegrid", "--config-dir", str(tmp_path), "--help").stdout
    assert "mine" in shown
    assert "llama8b" in shown
    plan = ("action=plan", "device_map=2xh100")
    assert (
        "loads 2 of 2 blocks"
        in installed("probegrid", "--config-dir", str(tmp_path), "model=mine", *plan).stdout
    )
    assert "loads 32 of 32 blocks" in installed("probegrid", "model=llama8b", *plan).stdout


def test_an_installed_probegrid_runs_the_users_own_grid(
    installed: Callable[..., subprocess.CompletedProcess[str]],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    grid = Grid(tmp_path, {})
    command = own_grid(grid, checkpoint("llama"), {"defaults": ["local", "_self_"], "cells_per_job": 1})
    assert "2 done" in installed("probegrid", *command).stdout
    assert grid.states() == ["done", "done"]
    assert len(grid.jobs()) == 2
