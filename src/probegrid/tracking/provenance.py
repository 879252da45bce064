"""Where a result comes from: code, machine, command and the versions of the packages."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from probegrid.tracking.redaction import redact_command

_PACKAGES = (
    "probegrid",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "datasets",
    "numpy",
    "scikit-learn",
    "pyarrow",
    "hydra-core",
    "omegaconf",
    "submitit",
    "mlflow",
)
_COMMAND_TIMEOUT_S = 10


@dataclass(frozen=True)
class Provenance:
    """Who made a result, with what, where and when."""

    git_commit: str | None
    """Commit of the working directory's repository, else of the package's own checkout, else None."""
    git_dirty: bool | None
    """Whether tracked files differ from that commit."""
    host: str
    """Name of the machine."""
    gpus: tuple[str, ...]
    """Model name of each visible GPU."""
    slurm_job_id: str | None
    """Id of the SLURM job, if it ran in one."""
    command: str
    """Command line, secrets removed."""
    started_at: str
    """When the cell started: ISO 8601 with its offset from UTC."""
    seconds: float
    """How long the cell took, in seconds."""


def provenance(started_at: datetime, argv: Sequence[str] | None = None) -> Provenance:
    """Describe the present process as the maker of a result that is complete now.

    Args:
        started_at: when the cell started, with its time zone.
        argv: the command line, where it is not this process's own (a cell inside a job).
    """
    commit, dirty = _git_state()
    return Provenance(
        git_commit=commit,
        git_dirty=dirty,
        host=socket.gethostname(),
        gpus=_gpu_names(),
        slurm_job_id=os.environ.get("SLURM_JOB_ID"),
        command=redact_command(own_argv() if argv is None else argv),
        started_at=started_at.isoformat(timespec="milliseconds"),
        seconds=round((datetime.now(UTC) - started_at).total_seconds(), 3),
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result, without importing any."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Return the commit that `Provenance.git_commit` names."""
    return _checkout()[0]


def uncommitted_changes() -> str | None:
    """Return what tracked files have beside that commit, as a diff; None without a repository."""
    commit, folder = _checkout()
    return None if commit is None else _git(folder, "diff", "HEAD")


def own_argv() -> list[str]:
    """Return this process's command line, the program by its name alone."""
    program = Path(sys.argv[0])
    return [program.parent.name if program.name == "__main__.py" else program.name, *sys.argv[1:]]


def _git_state() -> tuple[str | None, bool | None]:
    commit, folder = _checkout()
    if commit is None:
        return None, None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else changes != ""


def _checkout() -> tuple[str | None, Path]:
    """The commit and a folder of the working directory's repository, else of the package's own."""
    package = Path(__file__).parent
    commit = _git(Path.cwd(), "rev-parse", "HEAD")
    if commit is None and _git(package, "ls-files", "--error-unmatch", Path(__file__).name) is not None:
        return _git(package, "rev-parse", "HEAD"), package
    return commit, Path.cwd()


def _git(folder: Path, *arguments: str) -> str | None:
    return _output("git", "--no-optional-locks", "-C", str(folder), *arguments)


def _gpu_names() -> tuple[str, ...]:
    """Ask torch where it already uses CUDA, else the driver's own tool; neither is started for this."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return ()
    chosen = [f"--id={visible}"] if visible else []
    names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *chosen)
    return tuple(names.splitlines()) if names else ()


def _output(program: str, *arguments: str) -> str | None:
    """Return what a program prints, or None where it is absent, fails or hangs."""
    if shutil.which(program) is None:
        return None
    try:
        finished = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=True, timeout=_COMMAND_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return finished.stdout.strip()
