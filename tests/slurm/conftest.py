"""A real SLURM on loopback for the whole session; without its programs these tests are skipped, with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest
from filelock import FileLock
from sweep_helpers import Grid

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "slurmdbd", "mariadbd")
SCRIPT = Path(__file__).with_name("cluster.sh")


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """Eight nodes of four fake GPUs, 32 CPUs and 128 GB, for this process's tests; yields what its commands need."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"no SLURM on this machine: {', '.join(missing)} missing (apt-get install slurmctld slurmd "
                    "slurm-client munge slurmdbd mariadb-server)")  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="probegrid-slurm-", dir="/tmp"))  # sockets want short paths
    with FileLock("/tmp/probegrid-slurm.lock"):  # one at a time looks for ports that are free
        subprocess.run([SCRIPT, "up", folder], check=True, timeout=120, env=os.environ | {"TS_NODES": "8"})
    yield {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}
    subprocess.run([SCRIPT, "down", folder], check=True, timeout=120)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def grid(tmp_path: Path, cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Grid:
    """An empty folder to run grids in, on the cluster; a profile of the user's own is chosen as ``mine``.

    Its jobs run in a Python that has imported what they need; those of ``test_wheel.py`` start one.
    """
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    environment = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    made = Grid(tmp_path, cluster | environment)
    made.add(
        "hydra/launcher",
        "mine",
        {
            "defaults": ["slurm", "_self_"],
            "partition": "gpu",
            "poll_s": 1,
            "setup": ["export MINE=1"],
            "python": forked.python(),
        },
    )
    return made
