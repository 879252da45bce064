"""Where a result comes from, asked of real repositories and a made-up driver tool."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from probegrid.tracking.provenance import provenance, versions


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("one")
    identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
    for arguments in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], check=True)
    return tmp_path


def now() -> datetime:
    return datetime.now(UTC)


def test_the_commit_is_that_of_the_working_directory(repository: Path) -> None:
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (repository / "untracked").touch()
    made = provenance(now())
    assert (made.git_commit, made.git_dirty) == (head, False)
    (repository / "file").write_text("two")
    assert provenance(now()).git_dirty is True


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    made = provenance(now())
    assert (made.git_commit, made.git_dirty, made.gpus) == (None, None, ())


def test_times_carry_their_zone() -> None:
    made = provenance(now() - timedelta(seconds=90))
    assert datetime.fromisoformat(made.started_at).utcoffset() == timedelta(0)
    assert 90 <= made.seconds < 100


def test_the_command_is_redacted_and_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/probegrid/__main__.py", "model=tiny", "a.password=x y"])
    assert provenance(now()).command == "probegrid model=tiny 'a.password=***'"
    assert provenance(now(), ["probegrid", "model=tiny"]).command == "probegrid model=tiny"


def test_gpus_are_those_that_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$*" in *--id=1*) echo B;; *--id*) exit 6;; *) echo A; echo B;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert provenance(now()).gpus == ("A", "B")
    for visible, names in {"1": ("B",), "": (), "-1": (), "wrong": ()}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert provenance(now()).gpus == names


def test_versions_are_found_without_imports() -> None:
    code = (
        "import sys, probegrid.tracking.sync; from probegrid.tracking.provenance import versions\n"
        "versions(); print(sorted({'torch', 'mlflow', 'pyarrow', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n", done.stderr
    assert {"python", "torch", "mlflow", "hydra-core"} <= set(versions())
