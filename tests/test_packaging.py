"""The wheel holds everything that is needed, and works where nothing of the repository is."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "probegrid"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program of an environment that holds the wheel, from ``/``; dependencies are this environment's own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # a path added by a .pth file has its own .pth files passed over: the editable install stays out of sight
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [folder / "bin" / program, *arguments]
        return subprocess.run(
            command, cwd="/", env=environment, capture_output=True, text=True, timeout=120, check=True
        )

    return run


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
